//! Paths of fields that are only written out when somebody has to be told.

use std::fmt;

/// Where in an object a walk stands; made on the stack, turned into text on demand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trail<'a> {
    /// The object itself.
    Root,
    /// A field: `above.name`.
    Field(&'a Trail<'a>, &'a str),
    /// A field of a map with any keys, as CEL errors show it: `above[name]`.
    Key(&'a Trail<'a>, &'a str),
    /// An item: `above[3]`.
    Item(&'a Trail<'a>, usize),
}

impl<'a> Trail<'a> {
    /// Whether this is the object itself.
    pub(super) fn is_root(&self) -> bool {
        matches!(self, Self::Root)
    }

    /// The trail to a field below.
    pub(super) fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(above, name) if above.is_root() => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Key(above, name) => write!(f, "{above}[{name}]"),
            Self::Item(above, at) => write!(f, "{above}[{at}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trails_read_as_the_real_servers_paths() {
        let (root, at) = (Trail::Root, 3);
        let spec = root.field("spec");
        let nodes = spec.field("nodes");
        let item = Trail::Item(&nodes, at);
        assert_eq!(item.field("name").to_string(), "spec.nodes[3].name");
        assert_eq!(Trail::Key(&spec, "a.b").to_string(), "spec[a.b]");
        assert_eq!(Trail::Root.to_string(), "");
    }
}
