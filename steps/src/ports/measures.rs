//! What is measured outside of CUPCAKE, by queries that users write.

use super::cluster::OpsError;
use async_trait::async_trait;
use cupcake_engine::names::Reason;

/// What a query gives at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// A number.
    Value(f64),
    /// Nothing: no series fits the query.
    Nothing,
    /// So many numbers, of which none is the one.
    Many(usize),
}

/// Somebody who measures.
#[async_trait]
pub trait Measures: Send + Sync {
    /// The value of that query now. Reads only, and takes some seconds at the most.
    ///
    /// # Errors
    /// `Transient` where no answer came; `NeedsOperator` where none will: there is nobody to ask, or the query is none.
    async fn ask(&self, query: &str) -> Result<Measured, OpsError>;
}

/// Nobody.
pub struct Nobody;

/// Why there is no answer where nobody measures.
pub const NO_PROMETHEUS: &str = "NoPrometheus";

#[async_trait]
impl Measures for Nobody {
    async fn ask(&self, _: &str) -> Result<Measured, OpsError> {
        let message = "the operator knows no Prometheus to ask for spec.gates: set gates.prometheus.url of the chart (CUPCAKE_PROMETHEUS_URL)";
        Err(OpsError::NeedsOperator(Reason::new(NO_PROMETHEUS, message)))
    }
}
