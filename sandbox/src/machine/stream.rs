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

/// How many requests and writes a course holds: some ten times those of an upgrade of five nodes.
const COURSE_MAX: usize = 1 << 14;

/// The streams of a run's requests and writes, in their order: by it a moment of the run is a number of a stream. Of a very long run
/// the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course(Vec<Stream>);

impl Course {
    pub(super) fn goes_on(&mut self, stream: Stream) {
        if self.0.len() < COURSE_MAX {
            self.0.push(stream);
        }
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the next request or write of a stream when `moment` of all have been; `None` where there is none any more.
    pub fn next_of(&self, stream: Stream, moment: usize) -> Option<u64> {
        let (before, after) = self.0.split_at_checked(moment)?;
        let number = 1 + before.iter().filter(|other| **other == stream).count();
        after.contains(&stream).then(|| number.try_into().ok()).flatten()
    }
}

impl FromIterator<Stream> for Course {
    fn from_iter<T: IntoIterator<Item = Stream>>(streams: T) -> Self {
        Self(streams.into_iter().take(COURSE_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_a_course_is_the_next_number_of_each_stream() {
        let course: Course = [Stream::Lease, Stream::Operator, Stream::Lease, Stream::Agent].into_iter().collect();
        let at = |moment| [Stream::Lease, Stream::Operator, Stream::Agent].map(|stream| course.next_of(stream, moment));
        assert_eq!(at(0), [Some(1), Some(1), Some(1)]);
        assert_eq!(at(1), [Some(2), Some(1), Some(1)]);
        assert_eq!(at(3), [None, None, Some(1)]);
        assert_eq!((at(4), at(5)), ([None; 3], [None; 3]));
    }
}
