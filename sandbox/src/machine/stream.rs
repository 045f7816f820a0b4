//! Who can crash, and whose requests are counted.

use serde::Serialize;
use std::fmt;

/// A component that may crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// The operator.
    Operator,
    /// All agents together.
    Agent,
    /// All runners together.
    Runner,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Agent, Self::Runner];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Runner => "runner",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is counted, so that a fault can name one of it: over all places and lives of a component. Events never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Writes of the operator, but for Leases.
    Operator,
    /// Writes of the agents, to the API and to their disks.
    Agent,
    /// Writes of the runners, to their disks.
    Runner,
    /// Requests of the operator about its Lease: reads, writes, and starts of watches.
    Lease,
    /// Requests of the operator that write nothing, but for Leases: starts of watches too.
    OperatorRead,
    /// Requests of the agents that write nothing: starts of watches too.
    AgentRead,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Operator, Self::Agent, Self::Runner, Self::Lease, Self::OperatorRead, Self::AgentRead];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Runner => "runner",
            Self::Lease => "lease",
            Self::OperatorRead => "operator-read",
            Self::AgentRead => "agent-read",
        }
    }

    /// The writes of a component.
    pub const fn writes_of(component: Component) -> Self {
        match component {
            Component::Operator => Self::Operator,
            Component::Agent => Self::Agent,
            Component::Runner => Self::Runner,
        }
    }

    /// Whether nothing is ever written by it.
    pub const fn reads(self) -> bool {
        match self {
            Self::OperatorRead | Self::AgentRead => true,
            Self::Operator | Self::Agent | Self::Runner | Self::Lease => false,
        }
    }

    /// Whether it is so long, and so much alike, that a sample of it stands for all of it.
    pub const fn is_sampled(self) -> bool {
        match self {
            Self::Lease | Self::OperatorRead | Self::AgentRead => true,
            Self::Operator | Self::Agent | Self::Runner => false,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
