//! When a schedule is due, and when its window is open. The time-zone data is compiled in.
//!
//! A time that a clock change skips is due at the end of the gap; one that comes twice is due the first time (ADR 0001).

use super::Problem;
use chrono::{
    DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc, Weekday,
};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use cupcake_crds::update_schedule::{Day, MaintenanceWindow};
use cupcake_engine::clock::Timestamp;

/// How far back of the last due time it is looked for again, forwards: more than any clock change.
const BACK_HOURS: i64 = 3;
/// How many days a window may be away: a week, and clock changes swallow one at most.
const WINDOW_DAYS_MAX: u64 = 17;

/// The due times of a cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Calendar {
    cron: Cron,
    zone: Tz,
}

impl Calendar {
    /// Reads five fields and the name of a zone.
    ///
    /// # Errors
    /// What is wrong, with the field, its value and what to write instead.
    pub fn of(expression: &str, zone: &str, zone_field: &'static str) -> Result<Self, Problem> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| Problem {
            code: "InvalidSchedule",
            field: "spec.schedule",
            value: expression.to_owned(),
            what: error.to_string(),
            fix: "write minute, hour, day of month, month, day of week, such as \"0 2 1 * *\"".to_owned(),
        })?;
        Ok(Self { cron, zone: zone_of(zone, zone_field)? })
    }

    /// The first due time after `time`; `None` if there is none any more.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&time.with_timezone(&self.zone), false).ok()?;
        Some(next.with_timezone(&Utc)).filter(|next| *next > time)
    }

    /// The last due time after `after` that has come by `now`, and the first one where that is another.
    pub fn last(&self, after: Timestamp, now: Timestamp) -> Option<(Timestamp, Option<Timestamp>)> {
        let first = self.after(after).filter(|first| *first <= now)?;
        // Looked for backwards, because there may be a year of minutes between; and forwards from there, so that one direction decides.
        let back = self.cron.find_previous_occurrence(&now.with_timezone(&self.zone), true).ok();
        let from = back.map_or(first, |back| back.with_timezone(&Utc) - TimeDelta::hours(BACK_HOURS));
        let mut last = if from <= first { first } else { self.after(from).filter(|due| *due <= now).unwrap_or(first) };
        while let Some(next) = self.after(last).filter(|next| *next <= now) {
            last = next;
        }
        Some((last, (first < last).then_some(first)))
    }
}

/// A time zone by its IANA name.
fn zone_of(name: &str, field: &'static str) -> Result<Tz, Problem> {
    name.parse().map_err(|_| Problem {
        code: "UnknownTimeZone",
        field,
        value: name.to_owned(),
        what: "there is no such time zone".to_owned(),
        fix: "write an IANA name such as Europe/Amsterdam or UTC".to_owned(),
    })
}

/// A window in its time zone, which opens every day or on some days of the week.
#[derive(Debug, Clone)]
pub struct Window {
    /// Empty for every day.
    days: Vec<Weekday>,
    start: NaiveTime,
    end: NaiveTime,
    zone: Tz,
}

impl Window {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, with the field, its value and what to write instead.
    pub fn of(window: &MaintenanceWindow) -> Result<Self, Problem> {
        let time = |text: &str, field: &'static str| {
            NaiveTime::parse_from_str(text, "%H:%M").map_err(|error| Problem {
                code: "InvalidWindow",
                field,
                value: text.to_owned(),
                what: error.to_string(),
                fix: "write hours and minutes, such as 02:00".to_owned(),
            })
        };
        Ok(Self {
            days: window.days.iter().copied().map(weekday).collect(),
            start: time(&window.start, "spec.maintenanceWindow.start")?,
            end: time(&window.end, "spec.maintenanceWindow.end")?,
            zone: zone_of(&window.timezone, "spec.maintenanceWindow.timezone")?,
        })
    }

    /// The span in which `time` lies, or the next one after it: when it opens and when it closes.
    pub fn at_or_after(&self, time: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let today = time.with_timezone(&self.zone).date_naive();
        let first = today.checked_sub_days(Days::new(1))?;
        let spans = (0..=WINDOW_DAYS_MAX).filter_map(|days| self.span(first.checked_add_days(Days::new(days))?));
        let mut spans = spans.filter(|(opens, closes)| opens < closes && time < *closes);
        spans.next()
    }

    fn span(&self, day: NaiveDate) -> Option<(Timestamp, Timestamp)> {
        if !self.days.is_empty() && !self.days.contains(&day.weekday()) {
            return None;
        }
        let last = if self.end <= self.start { day.succ_opt()? } else { day };
        let opens = local(self.zone, day.and_time(self.start)).map(|(first, _)| first)?;
        let closes = local(self.zone, last.and_time(self.end)).map(|(_, last)| last)?;
        Some((opens, closes))
    }
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Monday => Weekday::Mon,
        Day::Tuesday => Weekday::Tue,
        Day::Wednesday => Weekday::Wed,
        Day::Thursday => Weekday::Thu,
        Day::Friday => Weekday::Fri,
        Day::Saturday => Weekday::Sat,
        Day::Sunday => Weekday::Sun,
    }
}

/// The first and the last moment at which a clock shows `time`; where it never does, the end of the gap.
fn local(zone: Tz, time: NaiveDateTime) -> Option<(Timestamp, Timestamp)> {
    let utc = |time: DateTime<Tz>| time.with_timezone(&Utc);
    match zone.from_local_datetime(&time) {
        LocalResult::Single(one) => Some((utc(one), utc(one))),
        LocalResult::Ambiguous(first, last) => Some((utc(first), utc(last))),
        LocalResult::None => {
            let mut later = (1..=24 * 60).map(|minutes| time + TimeDelta::minutes(minutes));
            let end = later.find_map(|time| zone.from_local_datetime(&time).earliest())?;
            Some((utc(end), utc(end)))
        }
    }
}
