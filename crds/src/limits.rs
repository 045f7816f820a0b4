//! How much the objects hold, and how texts are cut to it: a write is never refused because a message was long.
//!
//! The schemas carry the same numbers, so an API server refuses what exceeds them.

/// Characters of a message or a preflight's finding for people.
pub const MESSAGE_CHARS_MAX: usize = 1024;
/// Characters of a message about one node, on a machine or in flight.
pub const NODE_MESSAGE_CHARS_MAX: usize = 512;
/// Lines of a rendered graph.
pub const GRAPH_LINES_MAX: usize = 40;
/// Characters of a line of a rendered graph.
pub const GRAPH_LINE_CHARS_MAX: usize = 256;
/// Events that a run keeps, the newest ones.
pub const EVENTS_MAX: usize = 20;
/// Characters of an event that a run keeps.
pub const EVENT_CHARS_MAX: usize = 512;
/// Children that a run sums up.
pub const CHILDREN_MAX: usize = 64;
/// Characters of a cursor; small ones are the engine's aim, a refused one would lose the place.
pub const CURSOR_CHARS_MAX: usize = 65_536;
/// Characters of a step's name.
pub const STEP_CHARS_MAX: usize = 320;
/// Groups of workers that `spec.nodeOrder` makes, and values that it names: each is a batch of its own at least.
pub const NODE_GROUPS_MAX: usize = 64;
/// Characters of a reason.
pub const REASON_CHARS_MAX: usize = 128;
/// Groups of nodes whose commands a dry run tells: a hop has four and its workers', and those of six hops fit.
pub const NODE_COMMANDS_MAX: usize = 32;
/// Commands of one such group: a visit has nine at the most.
pub const COMMANDS_MAX: usize = 16;
/// Characters of one command.
pub const COMMAND_CHARS_MAX: usize = 256;
/// Nodes of one such group that are named.
pub const COMMANDED_NODES_MAX: usize = 8;
/// Nodes that a DirectUpdate names one by one.
pub const NODES_MAX: usize = 64;
/// Checks that an update may carry as acknowledged.
pub const ACKNOWLEDGED_CHECKS_MAX: usize = 64;
/// Requests of one sort that an update carries at once.
pub const REQUESTS_MAX: usize = 32;
// A run remembers every request that its update may carry: what it forgot while it still stands would be taken up anew, without end.
const _: () = assert!(2 * REQUESTS_MAX + LEFT_OUT_MAX <= cupcake_engine::cursor::REQUESTS_MAX);
/// The longest time that spec.operationTimeout comes to, in seconds: a year.
pub const OPERATION_SECONDS_MAX: u32 = 31_536_000;
/// Workers that an update may go on without because their drains did not end.
pub const LEFT_OUT_MAX: usize = 32;
/// Rules about pods of a node that is drained.
pub const DRAIN_RULES_MAX: usize = 16;
/// Namespaces of one of them.
pub const DRAIN_RULE_NAMESPACES_MAX: usize = 8;
/// Labels of one of them.
pub const DRAIN_RULE_LABELS_MAX: usize = 8;
/// Requirements of one of them.
pub const DRAIN_RULE_EXPRESSIONS_MAX: usize = 4;
/// Values of one requirement.
pub const DRAIN_RULE_VALUES_MAX: usize = 8;
/// Requests that a DirectUpdate remembers to have taken up.
pub const ACKNOWLEDGED_MAX: usize = 3 * REQUESTS_MAX + 4;
/// Gates of a user in one update.
pub const USER_GATES_MAX: usize = 8;
/// Places of such gates that a DirectUpdate tells of.
pub const GATES_SEEN_MAX: usize = 16;
/// Changes of a DirectUpdate that are still to be told to the sink of notifications: an update has some ten in all, and a sink that is
/// away for as many is not waited for.
pub const NOTICES_MAX: usize = 16;
/// Characters of what is told of one of them.
pub const NOTICE_CHARS_MAX: usize = 512;
/// Checks that a preflight reports.
pub const CHECKS_MAX: usize = 32;
/// Doubts about etcd's data that an inventory names.
pub const ETCD_DOUBTS_MAX: usize = 10;
/// Characters of one of them.
pub const ETCD_DOUBT_CHARS_MAX: usize = 160;
/// Changes by hand that an inventory names.
pub const HAND_MADE_MAX: usize = 8;
/// Characters of one of them.
pub const HAND_MADE_CHARS_MAX: usize = 128;
/// Settings of components that an inventory names.
pub const SETTINGS_MAX: usize = 32;
/// Characters of one of them.
pub const SETTING_CHARS_MAX: usize = 128;
/// Versions of one repository that an inventory names, the newest ones.
pub const VERSIONS_MAX: usize = 32;
/// Versions of containerd's package that an inventory names.
pub const CONTAINERDS_MAX: usize = 16;
/// Members of etcd that a machine tells: more than any cluster that kubeadm makes has use for.
pub const ETCD_MEMBERS_MAX: usize = 9;
/// What keeps packages at their version, of which an inventory names so many.
pub const PACKAGE_HOLDS_MAX: usize = 24;
/// Characters of one of them.
pub const PACKAGE_HOLD_CHARS_MAX: usize = 128;
/// Characters of a folder that an inventory names.
pub const FOLDER_CHARS_MAX: usize = 256;
/// Milliseconds by which an inventory says that a clock is off, at the most: a hundred years.
pub const CLOCK_AHEAD_MILLISECONDS_MAX: i64 = 3_155_760_000_000;
/// Milliseconds of an inventory's doubt about that, at the most: what is known less well is not told.
pub const CLOCK_UNCERTAINTY_MILLISECONDS_MAX: u64 = 60_000;
/// Outputs of an order.
pub const OUTPUTS_MAX: usize = 16;
/// Characters of an output's value.
pub const OUTPUT_CHARS_MAX: usize = 256;

/// Cuts `text` to at most `chars_max` characters (as an API server counts them), the last of them an ellipsis if anything was cut.
pub fn cut(text: &mut String, chars_max: usize) {
    if text.chars().nth(chars_max).is_none() {
        return;
    }
    let kept = chars_max.saturating_sub(1);
    if let Some((at, _)) = text.char_indices().nth(kept) {
        text.truncate(at);
    }
    if chars_max > 0 {
        text.push('…');
    }
}

pub(crate) fn cut_some(text: Option<&mut String>, chars_max: usize) {
    if let Some(text) = text {
        cut(text, chars_max);
    }
}

/// Keeps the last `items_max` of `items`.
pub(crate) fn keep_last<T>(items: &mut Vec<T>, items_max: usize) {
    let surplus = items.len().saturating_sub(items_max);
    items.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_text_stays_and_a_long_one_ends_in_an_ellipsis() {
        for (text, chars_max, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("äöü", 3, "äöü"),
            ("äöüß", 3, "äö…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            let mut cut_text = text.to_owned();
            cut(&mut cut_text, chars_max);
            assert_eq!(cut_text, expected, "{text} to {chars_max}");
        }
    }

    #[test]
    fn the_newest_items_are_kept() {
        let mut items = vec![1, 2, 3];
        keep_last(&mut items, 2);
        assert_eq!(items, [2, 3]);
    }

    proptest! {
        #[test]
        fn a_cut_text_is_never_longer_than_its_limit(text in "\\PC{0,40}", chars_max in 0_usize..50) {
            let mut cut_text = text.clone();
            cut(&mut cut_text, chars_max);
            prop_assert!(cut_text.chars().count() <= chars_max);
            prop_assert!(text.chars().count() > chars_max || cut_text == text);
        }
    }
}
