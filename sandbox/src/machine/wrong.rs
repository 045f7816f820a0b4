//! What can go wrong, and with what.

use super::stream::Stream;
use serde::Serialize;

/// What goes wrong at a request or a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// The component crashes, and nothing of the write remains.
    Before,
    /// The write stands, and the component crashes before it hears of it.
    After,
    /// The component crashes; of an append to a file only a part stands, other writes stand whole.
    Torn,
    /// The write stands, and its answer is lost; the component lives on.
    ReplyLost,
    /// The connection is refused; nothing stands.
    Refused,
    /// The API server answers 429; nothing stands.
    Busy,
    /// The write stands, and the API server answers 504.
    TimedOut,
    /// The API server's authorizer is cold, for [`COLD_SECONDS`]: it answers 403 to every request of our programs, and nothing stands.
    Forbidden,
    /// The component is stopped (SIGSTOP) for [`STOPPED_SECONDS`], and goes on as if nothing had been: with a write on its way, or
    /// with the answer to what it read on its way back.
    Stopped,
    /// The write stands, and the component is asked to stop (SIGTERM): it winds down, ends, and another one is started.
    AskedToStop,
    /// The write stands; then no request gets through for [`AWAY_SECONDS`].
    ApiAway,
    /// The write stands; then all watches end, and none can resume from where it was.
    WatchesLost,
    /// The machine of the component loses its power in the middle of the write and boots again. All that runs on it ends.
    PowerCut,
    /// From this write on the machine's disk is full, for [`DISK_FULL_SECONDS`].
    DiskFull,
    /// A person starts the runner's program by hand, beside its unit.
    SecondRunner,
    /// The write stands; then every watch tells what happens [`WATCHES_LATE_SECONDS`] late, at most.
    WatchesLate,
    /// The write stands; then no watch that is open tells what happens in the next [`EVENTS_LOST_SECONDS`], neither then nor later, and
    /// all of them stay open.
    EventsLost,
    /// etcd has no leader, for [`ELECTION_SECONDS`]: no request is answered but with an error, and nothing stands.
    Election,
    /// The write stands; the clock of the component's machine jumps [`CLOCK_AHEAD_SECONDS`] ahead, and back after
    /// [`CLOCK_WRONG_SECONDS`].
    ClockJump,
    /// The write stands; somebody deletes the Node of the component's machine.
    NodeDeleted,
    /// A second agent of the same node lives beside the first, for [`DOUBLED_SECONDS`].
    Doubled,
    /// Somebody with the epoch of an older leader writes an order for the component's node, over what it read then and over what
    /// stands now; the present order with other content; the task for another node; and takes the answer away.
    StaleOrder,
    /// The write stands; a person pauses the update, and lets it go on after [`PAUSED_SECONDS`].
    Paused,
    /// The write stands; a person cancels the update.
    Cancelled,
    /// The write stands; a person leaves the component's node out of the update.
    LeftOut,
    /// The write stands; a person edits what is under way: the target of the update, the run that its status names, the plan of
    /// each run, and what is in the plan.
    Edited,
    /// The write stands; somebody makes a run under the name of each child that a run is about to make: with that run's name as its
    /// parent's, another's UID, and an end.
    NameTaken,
}

/// How long a stopped component is stopped: longer than any lease.
pub const STOPPED_SECONDS: i64 = 40;
/// How long an API server's authorizer is cold.
pub const COLD_SECONDS: i64 = 5;
/// How long the API is away.
pub const AWAY_SECONDS: i64 = 150;
/// How long a full disk is full.
pub const DISK_FULL_SECONDS: i64 = 90;
/// How late watches tell.
pub const WATCHES_LATE_SECONDS: i64 = 20;
/// How long open watches lose what happens.
pub const EVENTS_LOST_SECONDS: i64 = 30;
/// How long etcd is without a leader.
pub const ELECTION_SECONDS: i64 = 3;
/// How far a clock jumps: more than a node may soak, less than what is done on a node may take.
pub const CLOCK_AHEAD_SECONDS: i64 = 600;
/// How long a clock is wrong.
pub const CLOCK_WRONG_SECONDS: i64 = 240;
/// How long an agent has a double.
pub const DOUBLED_SECONDS: i64 = 90;
/// How long an update is paused.
pub const PAUSED_SECONDS: i64 = 120;

impl Wrong {
    /// All of it.
    pub const ALL: [Self; 27] = [
        Self::Before,
        Self::After,
        Self::Torn,
        Self::ReplyLost,
        Self::Refused,
        Self::Busy,
        Self::TimedOut,
        Self::Forbidden,
        Self::Stopped,
        Self::AskedToStop,
        Self::ApiAway,
        Self::WatchesLost,
        Self::PowerCut,
        Self::DiskFull,
        Self::SecondRunner,
        Self::WatchesLate,
        Self::EventsLost,
        Self::Election,
        Self::ClockJump,
        Self::NodeDeleted,
        Self::Doubled,
        Self::StaleOrder,
        Self::Paused,
        Self::Cancelled,
        Self::LeftOut,
        Self::Edited,
        Self::NameTaken,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Torn => "torn",
            Self::ReplyLost => "reply-lost",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::TimedOut => "timed-out",
            Self::Forbidden => "forbidden",
            Self::Stopped => "stopped",
            Self::AskedToStop => "asked-to-stop",
            Self::ApiAway => "api-away",
            Self::WatchesLost => "watches-lost",
            Self::PowerCut => "power-cut",
            Self::DiskFull => "disk-full",
            Self::SecondRunner => "second-runner",
            Self::WatchesLate => "watches-late",
            Self::EventsLost => "events-lost",
            Self::Election => "election",
            Self::ClockJump => "clock-jump",
            Self::NodeDeleted => "node-deleted",
            Self::Doubled => "doubled",
            Self::StaleOrder => "stale-order",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::LeftOut => "left-out",
            Self::Edited => "edited",
            Self::NameTaken => "name-taken",
        }
    }

    /// Whether it is a crash of the component.
    pub const fn is_crash(self) -> bool {
        matches!(self, Self::Before | Self::After | Self::Torn)
    }

    /// Whether such a write can meet it.
    pub(super) const fn befalls(self, write: WriteTo) -> bool {
        match self {
            Self::Before
            | Self::After
            | Self::Torn
            | Self::Stopped
            | Self::AskedToStop
            | Self::ApiAway
            | Self::WatchesLost
            | Self::WatchesLate
            | Self::EventsLost
            | Self::ClockJump
            | Self::NodeDeleted
            | Self::Doubled
            | Self::StaleOrder
            | Self::Paused
            | Self::Cancelled
            | Self::LeftOut
            | Self::Edited
            | Self::NameTaken => true,
            Self::ReplyLost | Self::Refused | Self::Busy | Self::TimedOut | Self::Forbidden | Self::Election => {
                matches!(write, WriteTo::Api)
            }
            Self::PowerCut | Self::DiskFull | Self::SecondRunner => matches!(write, WriteTo::Disk),
        }
    }

    /// Whether schedules are drawn and listed with it. One that has to fall between two certain writes to do anything is only asked for.
    pub const fn is_drawn(self) -> bool {
        !matches!(self, Self::NameTaken)
    }

    /// Whether what is counted there can meet it. Requests go to the API, a runner's writes to its disk, an agent's to either; of a read nothing stands.
    pub const fn fits(self, stream: Stream) -> bool {
        match self {
            Self::Before | Self::Stopped => true,
            Self::After | Self::AskedToStop => !stream.reads(),
            Self::ReplyLost | Self::Election => matches!(stream, Stream::Operator | Stream::Agent | Stream::Lease),
            Self::Refused | Self::Busy | Self::TimedOut | Self::Forbidden => !matches!(stream, Stream::Runner),
            Self::ApiAway | Self::WatchesLost | Self::ClockJump => {
                matches!(stream, Stream::Operator | Stream::Agent | Stream::Runner)
            }
            Self::WatchesLate | Self::EventsLost | Self::Paused | Self::Cancelled | Self::Edited | Self::NameTaken => {
                matches!(stream, Stream::Operator | Stream::Agent)
            }
            Self::NodeDeleted | Self::LeftOut => matches!(stream, Stream::Agent | Stream::Runner),
            Self::Doubled | Self::StaleOrder => matches!(stream, Stream::Agent),
            Self::PowerCut | Self::DiskFull => matches!(stream, Stream::Agent | Stream::Runner),
            Self::Torn | Self::SecondRunner => matches!(stream, Stream::Runner),
        }
    }
}

/// Where a write goes. An agent writes to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteTo {
    /// A request to the API server.
    Api,
    /// A file.
    Disk,
}
