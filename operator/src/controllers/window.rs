//! When an update may begin something new: its `spec.maintenanceWindow`. Pure.
//!
//! Outside the window no node is begun, nor anything between nodes; nodes that are under way come to their end, and are given back. The
//! rest goes on by itself when it opens again. Nobody writes down that it is closed: spec and time say it, to every replica alike. An edit counts at once.

use cupcake_crds::DirectUpdate;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::names::Reason;
use cupcake_workflows::schedule::{OUTSIDE_WINDOW, Window};

/// How a window stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Always,
    /// Open since then, and closes then.
    Open {
        /// Since when.
        opened: Timestamp,
        /// Until when.
        closes: Timestamp,
    },
    /// Closed; why, and when it opens, if it ever does.
    Closed {
        /// What people are told.
        reason: Reason,
        /// When it opens, if it ever does.
        opens: Option<Timestamp>,
    },
}

/// That of an update.
pub fn state(update: &DirectUpdate, now: Timestamp) -> State {
    let Some(window) = &update.spec.maintenance_window else { return State::Always };
    let holds = |message: String, opens| State::Closed { reason: Reason::new(OUTSIDE_WINDOW, message), opens };
    match Window::of(window) {
        // Edited into one that cannot be read: nothing is begun under a word that nobody understands.
        Err(problem) => holds(format!("held: {problem}"), None),
        Ok(window) => match window.at_or_after(now) {
            Some((opened, closes)) if opened <= now => State::Open { opened, closes },
            Some((opens, _)) => {
                let at = opens.format("%Y-%m-%d %H:%M");
                holds(format!("outside spec.maintenanceWindow: goes on by itself at {at} UTC"), Some(opens))
            }
            None => holds("outside spec.maintenanceWindow, which never opens: change it".to_owned(), None),
        },
    }
}

impl State {
    /// Why nothing new is begun now.
    pub fn holds(self) -> Option<Reason> {
        self.closed().map(|(reason, _)| reason)
    }

    /// Why it is closed, and when it opens, if it ever does.
    pub fn closed(self) -> Option<(Reason, Option<Timestamp>)> {
        match self {
            Self::Closed { reason, opens } => Some((reason, opens)),
            Self::Always | Self::Open { .. } => None,
        }
    }

    /// When it changes.
    pub fn changes(&self) -> Option<Timestamp> {
        match self {
            Self::Always => None,
            Self::Open { closes, .. } => Some(*closes),
            Self::Closed { opens, .. } => *opens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn looked(window: &Value, now: &str) -> State {
        let update: DirectUpdate = serde_json::from_value(json!({
            "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "DirectUpdate", "metadata": {"name": "to-1-34"},
            "spec": {"targetVersion": "1.34.4", "maintenanceWindow": window},
        }))
        .unwrap();
        state(&update, at(now))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_open_from_its_start_until_right_before_its_end_on_its_days() {
        let window = json!({"start": "22:00", "end": "04:00", "timezone": "Europe/Amsterdam", "days": ["Saturday"]});
        let (opened, closes) = (at("2027-01-09T21:00:00Z"), at("2027-01-10T03:00:00Z"));
        // 2027-01-09 is a Saturday; its night ends on Sunday.
        assert_eq!(looked(&window, "2027-01-09T21:00:00Z"), State::Open { opened, closes });
        assert_eq!(looked(&window, "2027-01-10T02:59:59Z"), State::Open { opened, closes });
        let after = looked(&window, "2027-01-10T03:00:00Z");
        assert_eq!(after.changes(), Some(at("2027-01-16T21:00:00Z")), "a week later");
        let reason = after.holds().unwrap();
        assert_eq!(reason.message, "outside spec.maintenanceWindow: goes on by itself at 2027-01-16 21:00 UTC");
        assert_eq!(looked(&Value::Null, "2027-01-10T03:00:00Z"), State::Always);
    }

    #[test]
    fn a_window_that_cannot_be_read_holds_and_says_what_is_wrong_with_it() {
        let window = json!({"start": "22:00", "end": "04:00", "timezone": "Europe/Amsterdan"});
        let reason = looked(&window, "2027-01-09T21:00:00Z").holds().unwrap();
        assert!(
            reason.message.contains("spec.maintenanceWindow.timezone") && reason.message.contains("Amsterdan"),
            "{reason}"
        );
    }
}
