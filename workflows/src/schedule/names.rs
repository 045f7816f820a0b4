//! Names of what schedules create.

use cupcake_engine::clock::Timestamp;

/// The longest name of a DirectUpdate after which runs and plans can be named, in bytes (see `request`).
const NAME_BYTES_MAX: usize = 171;

/// The DirectUpdate of an UpdateSchedule for one due time: `<schedule>-<date>-<hours and minutes in UTC>`.
///
/// # Guarantees
/// The same for the same arguments, another for another due time, and a valid name of at most 171 bytes.
pub fn update_name(schedule: &str, uid: &str, due: Timestamp) -> String {
    let when = due.format("%Y%m%d-%H%M").to_string();
    format!("{}-{when}", shortened(schedule, uid, NAME_BYTES_MAX - when.len() - 1))
}

/// The DirectUpdate of a ScheduledUpdate: of the same name, as far as that is not too long.
pub fn once_name(scheduled: &str, uid: &str) -> String {
    shortened(scheduled, uid, NAME_BYTES_MAX)
}

/// Cut to `bytes_max`, the end replaced by the beginning of the UID.
fn shortened(name: &str, uid: &str, bytes_max: usize) -> String {
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let uid: String = uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let head: String = name.chars().take(bytes_max - 9).collect();
    format!("{}-{}", head.trim_end_matches(['-', '.']), uid.to_ascii_lowercase())
}
