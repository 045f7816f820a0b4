//! Durations, and what a state says in words.

use super::View;
use cupcake_engine::clock::Timestamp;
use cupcake_engine::cursor::VertexState;
use cupcake_engine::dag::Vertex;

/// A duration in two units at the most: `38s`, `2m10s`, `3h5m`, `2d4h`; negative ones count as none.
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let two = |large: i64, large_unit: char, small: i64, small_unit: char| {
        if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, 'm', seconds % 60, 's'),
        3_600..86_400 => two(seconds / 3_600, 'h', seconds % 3_600 / 60, 'm'),
        _ => two(seconds / 86_400, 'd', seconds % 86_400 / 3_600, 'h'),
    }
}

pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    duration((to - from).num_seconds())
}

/// What stands for a vertex or a group of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Pending,
    Skipped,
    Done,
    Running,
    BackingOff,
    Waiting,
    Failed,
}

impl State {
    pub fn of(state: VertexState) -> Self {
        match state {
            VertexState::Pending { .. } => Self::Pending,
            VertexState::Started { .. } => Self::Running,
            VertexState::Waiting { .. } => Self::Waiting,
            VertexState::BackingOff { .. } => Self::BackingOff,
            VertexState::Succeeded { .. } => Self::Done,
            VertexState::Skipped { .. } => Self::Skipped,
            VertexState::Failed { .. } => Self::Failed,
        }
    }

    pub fn is_done(self) -> bool {
        match self {
            Self::Done | Self::Skipped => true,
            Self::Pending | Self::Running | Self::BackingOff | Self::Waiting | Self::Failed => false,
        }
    }

    pub fn is_active(self) -> bool {
        match self {
            Self::Running | Self::BackingOff | Self::Waiting => true,
            Self::Pending | Self::Skipped | Self::Done | Self::Failed => false,
        }
    }
}

/// When a vertex was first started, if its state still tells.
pub(super) fn first_of(state: VertexState) -> Option<Timestamp> {
    match state {
        VertexState::Pending { .. } | VertexState::Skipped { .. } => None,
        VertexState::Started { first, .. }
        | VertexState::Waiting { first, .. }
        | VertexState::BackingOff { first, .. }
        | VertexState::Succeeded { first, .. }
        | VertexState::Failed { first, .. } => Some(first),
    }
}

/// When a vertex came to rest.
pub(super) fn ended_of(state: VertexState) -> Option<Timestamp> {
    match state {
        VertexState::Pending { .. }
        | VertexState::Started { .. }
        | VertexState::Waiting { .. }
        | VertexState::BackingOff { .. } => None,
        VertexState::Succeeded { ended, .. }
        | VertexState::Skipped { ended, .. }
        | VertexState::Failed { ended, .. } => Some(ended),
    }
}

/// The state of a vertex; one that the cursor does not know counts as not begun.
pub(super) fn state_of(view: &View<'_>, vertex: &Vertex) -> VertexState {
    view.cursor.state(&vertex.name).unwrap_or(VertexState::Pending { attempts: 0 })
}

/// Whether how long a vertex has taken is told beside its detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// In a column of its own: a wait that is as long need not say so again.
    Beside,
    /// Nowhere else.
    Inside,
}

/// What a vertex's state says beyond its sign: attempt, wait, reason. One line, often empty.
pub(super) fn detail(view: &View<'_>, vertex: &Vertex, time: Time) -> String {
    let now = view.now();
    let note = view.cursor.note(&vertex.name).map(|note| one_line(&note.to_string()));
    let because = note.map(|note| format!(": {note}")).unwrap_or_default();
    let of = |attempt: u32| format!("attempt {attempt}/{}", vertex.attempts_max.max(attempt));
    match state_of(view, vertex) {
        VertexState::Pending { attempts: 0 }
        | VertexState::Started { attempt: 1, .. }
        | VertexState::Succeeded { attempt: 1, .. } => String::new(),
        VertexState::Pending { attempts } => format!("{} to come", of(attempts + 1)),
        VertexState::Waiting { attempt: 1, first, since, .. } if first == since && time == Time::Beside => {
            format!("waits{because}")
        }
        VertexState::Waiting { attempt: 1, since, .. } => format!("waits {}{because}", between(since, now)),
        VertexState::Waiting { attempt, since, .. } => {
            format!("waits {}, {}{because}", between(since, now), of(attempt))
        }
        VertexState::BackingOff { attempt, until, .. } => {
            format!("{} in {}{because}", of(attempt + 1), between(now, until))
        }
        VertexState::Started { attempt, .. } | VertexState::Succeeded { attempt, .. } => of(attempt),
        VertexState::Skipped { .. } => format!("skipped{because}"),
        VertexState::Failed { attempt: 1, .. } => format!("failed{because}"),
        VertexState::Failed { attempt, .. } => format!("failed after {attempt} attempts{because}"),
    }
}

/// Without line breaks and other control characters, which `kubectl describe` would print as they are.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_the_most() {
        for (seconds, wanted) in [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (130, "2m10s"),
            (3_599, "59m59s"),
            (3_600, "1h"),
            (11_130, "3h5m"),
            (86_400, "1d"),
            (190_000, "2d4h"),
        ] {
            assert_eq!(duration(seconds), wanted, "{seconds}");
        }
    }
}
