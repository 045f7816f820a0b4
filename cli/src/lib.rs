//! kubectl cupcake: plan, status, watch, sandbox.
