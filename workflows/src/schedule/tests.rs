use super::*;
use crate::testing::{cluster, v};
use chrono::{DateTime, TimeDelta};
use chrono_tz::Tz;
use cupcake_crds::update_schedule::{ConcurrencyPolicy, MaintenanceWindow, UpdatePolicy, UpdateScheduleStatus};
use cupcake_crds::values::{ClusterSnapshot, NodeRole, Phase};
use cupcake_crds::{ScheduledUpdate, UpdateSchedule, UpdateScheduleSpec};
use cupcake_engine::clock::Timestamp;
use serde_json::json;

fn at(text: &str) -> Timestamp {
    DateTime::parse_from_rfc3339(text).unwrap().into()
}

fn dues(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let calendar = Calendar::of(cron, zone, "spec.timeZone").unwrap();
    let tz: Tz = zone.parse().unwrap();
    let mut time = at(from);
    let mut found = Vec::new();
    for _ in 0..count {
        time = calendar.after(time).unwrap();
        found.push(time.with_timezone(&tz).format("%Y-%m-%d %a %H:%M").to_string());
    }
    found
}

#[test]
fn the_table_of_the_decision_record_holds() {
    let new_york = |cron: &str, from: &str, count| dues(cron, "America/New_York", from, count);
    let sunday = "2026-11-22T08:00:00-05:00";
    assert_eq!(new_york("0 2 * * 6", sunday, 1), ["2026-11-28 Sat 02:00"]);
    assert_eq!(new_york("0 2 * * 0", sunday, 1), ["2026-11-29 Sun 02:00"]);
    assert_eq!(
        new_york("0 2 1 * MON", sunday, 3),
        ["2026-11-23 Mon 02:00", "2026-11-30 Mon 02:00", "2026-12-01 Tue 02:00"]
    );
    let gap = new_york("30 2 * * *", "2027-03-13T12:00:00Z", 2);
    assert_eq!(gap, ["2027-03-14 Sun 03:00", "2027-03-15 Mon 02:30"]);
    let fold = new_york("30 1 * * *", "2026-10-31T12:00:00Z", 2);
    assert_eq!(fold, ["2026-11-01 Sun 01:30", "2026-11-02 Mon 01:30"]);
    let half = dues("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", 2);
    assert_eq!(half, ["2026-10-04 Sun 02:30", "2026-10-05 Mon 02:15"], "a gap of half an hour");
}

#[test]
fn what_can_never_be_due_is_refused_with_field_value_and_what_to_write() {
    let told = |cron: &str, zone: &str| {
        let mut schedule = schedule(cron, zone);
        schedule.spec.suspended = true;
        match recurring(&facts(&schedule, &[], None, at("2027-01-01T00:00:00Z"))) {
            Decision::Stalled(problem) => (problem.code, problem.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let (code, text) = told("0 2 30 2 *", "UTC");
    assert_eq!(code, "NeverDue");
    assert!(text.starts_with("spec.schedule: invalid value \"0 2 30 2 *\""), "{text}");
    assert_eq!(told("61 2 * * *", "UTC").0, "InvalidSchedule");
    let (code, text) = told("0 2 * * *", "Europe/Amsterdm");
    assert_eq!(code, "UnknownTimeZone");
    assert!(text.contains("spec.timeZone") && text.contains("Europe/Amsterdam"), "{text}");
}

#[test]
fn a_window_over_midnight_and_one_over_a_clock_change_open_and_close_where_clocks_say() {
    let window = |start: &str, end: &str, zone: &str| {
        let window =
            MaintenanceWindow { days: Vec::new(), start: start.into(), end: end.into(), timezone: zone.into() };
        Window::of(&window).unwrap()
    };
    let night = window("22:00", "04:00", "Europe/Amsterdam");
    let span = (at("2027-01-09T21:00:00Z"), at("2027-01-10T03:00:00Z"));
    assert_eq!(night.at_or_after(at("2027-01-10T01:00:00Z")), Some(span));
    assert_eq!(night.at_or_after(at("2027-01-09T12:00:00Z")), Some(span));
    let spring = window("02:30", "04:00", "Europe/Amsterdam").at_or_after(at("2027-03-28T00:00:00Z"));
    assert_eq!(spring, Some((at("2027-03-28T01:00:00Z"), at("2027-03-28T02:00:00Z"))), "it opens at the gap's end");
    let autumn = window("02:00", "02:30", "Europe/Amsterdam").at_or_after(at("2027-10-31T00:00:00Z"));
    assert_eq!(autumn, Some((at("2027-10-31T00:00:00Z"), at("2027-10-31T01:30:00Z"))), "it closes the second time");
}

fn schedule(cron: &str, zone: &str) -> UpdateSchedule {
    let mut schedule: UpdateSchedule = serde_json::from_value(json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "UpdateSchedule",
        "metadata": {"name": "patches", "uid": "0b0cbb6e-5a0e-4f0b-9f0e-3a2f7f1d2c10", "generation": 1},
        "spec": {"schedule": cron, "updatePolicy": {"targetVersionPattern": "latest-patch"}},
    }))
    .unwrap();
    schedule.spec.time_zone = Some(zone.to_owned());
    schedule
}

fn facts<'a>(
    schedule: &'a UpdateSchedule,
    updates: &'a [OwnUpdate],
    cluster: Option<&'a ClusterSnapshot>,
    now: Timestamp,
) -> RecurringFacts<'a> {
    RecurringFacts { schedule, created: at("2026-11-22T00:00:00Z"), updates, cluster, now }
}

fn newer() -> ClusterSnapshot {
    let mut cluster = cluster(1, 1, "1.33.4");
    cluster.known_versions = ["1.33.4", "1.33.7", "1.34.2"].map(v).into();
    cluster
}

/// One schedule with a store of what it created, as the operator moves it: create, then status, either of which may be lost.
struct Walk {
    schedule: UpdateSchedule,
    updates: Vec<OwnUpdate>,
    /// Every creation that the server accepted.
    created: Vec<(String, Timestamp)>,
}

impl Walk {
    /// Decides until it waits; `crash` says which write is the last of this life: before, between or after.
    fn wake(&mut self, now: Timestamp, cluster: &ClusterSnapshot, crash: u32) -> Timestamp {
        let mut writes = 0;
        loop {
            let decision = recurring(&facts(&self.schedule, &self.updates, Some(cluster), now));
            let mut status = self.schedule.status.clone().unwrap_or_default();
            let handled = match decision {
                Decision::Wait { until } => return until,
                Decision::Create { due, name, .. } => {
                    if writes == crash {
                        return now;
                    }
                    writes += 1;
                    if !self.updates.iter().any(|update| update.name == name) {
                        self.created.push((name.clone(), due.at));
                        self.updates.push(OwnUpdate { name, due: due.at, over: true, trouble: None });
                    }
                    due.at
                }
                Decision::Recorded { due, .. } => due,
                other => panic!("{other:?} at {now}"),
            };
            if writes == crash {
                return now;
            }
            writes += 1;
            status.handled_until = status.handled_until.max(Some(handled));
            status.observed_generation = Some(1);
            self.schedule.status = Some(status);
        }
    }
}

#[test]
fn each_due_time_of_ten_years_in_five_zones_is_begun_once_whichever_write_is_lost() {
    let zones = ["UTC", "Europe/Amsterdam", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"];
    let crons = ["30 2 * * 0", "15 2 1 * *", "30 1 1-7 3,4,10,11 *", "0 */6 25-31 3,10 *"];
    let (begin, end) = (at("2026-11-22T00:00:00Z"), at("2036-11-22T00:00:00Z"));
    let cluster = newer();
    let mut all = 0;
    for (number, (zone, cron)) in zones.iter().flat_map(|zone| crons.map(|cron| (zone, cron))).enumerate() {
        let mut walk = Walk { schedule: schedule(cron, zone), updates: Vec::new(), created: Vec::new() };
        let calendar = Calendar::of(cron, zone, "spec.timeZone").unwrap();
        let expected: Vec<Timestamp> = std::iter::successors(calendar.after(begin), |due| calendar.after(*due))
            .take_while(|due| *due <= end)
            .collect();
        let (mut now, mut crash) = (begin, u32::try_from(number).unwrap());
        while now <= end {
            // 0 and 1 die before and between the two writes, 2 after both, 3 lives.
            crash = crash.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let next = walk.wake(now, &cluster, (crash >> 16) % 4);
            // A new replica leads half a minute later.
            now = if next > now { next } else { now + TimeDelta::seconds(30) };
            // What is old is gone: nobody keeps thousands of updates.
            let old = walk.updates.len().saturating_sub(3);
            walk.updates.drain(..old);
        }
        let started: Vec<Timestamp> = walk.created.iter().map(|(_, due)| *due).collect();
        assert_eq!(started, expected, "{cron} in {zone}");
        let names: std::collections::BTreeSet<&String> = walk.created.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), started.len(), "{cron} in {zone}: each has a name of its own");
        all += started.len();
    }
    assert!(all > 3_000, "only {all} due times");
}

#[test]
fn the_last_due_time_is_the_same_whether_looked_for_or_counted() {
    for zone in ["Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe"] {
        for cron in ["30 2 * * *", "*/20 * * * *", "15 1 * * *"] {
            let calendar = Calendar::of(cron, zone, "spec.timeZone").unwrap();
            for from in ["2027-03-13T00:00:00Z", "2027-03-27T00:00:00Z", "2026-10-31T00:00:00Z", "2027-04-03T00:00:00Z"]
            {
                let from = at(from);
                for minutes in (0..60 * 48).step_by(7) {
                    let now = from + TimeDelta::minutes(minutes);
                    let counted = std::iter::successors(calendar.after(from), |due| calendar.after(*due));
                    let counted = counted.take_while(|due| *due <= now).last();
                    assert_eq!(calendar.last(from, now).map(|(last, _)| last), counted, "{cron} in {zone} at {now}");
                }
            }
        }
    }
}

#[test]
fn a_start_is_late_within_its_deadline_and_missed_after_it() {
    let schedule = schedule("0 2 * * *", "UTC");
    let begun = newer();
    let decided = |now: &str| recurring(&facts(&schedule, &[], Some(&begun), at(now)));
    assert_eq!(decided("2026-11-22T01:59:59Z"), Decision::Wait { until: at("2026-11-22T02:00:00Z") });
    assert!(matches!(decided("2026-11-22T02:59:59Z"), Decision::Create { target, .. } if target == v("1.33.7")));
    let Decision::Missed { due, latest } = decided("2026-11-24T03:00:00Z") else { panic!("not missed") };
    assert_eq!((due.at, latest), (at("2026-11-24T02:00:00Z"), at("2026-11-24T03:00:00Z")));
    assert_eq!(due.passed, Some(at("2026-11-22T02:00:00Z")), "two days were missed before");
}

#[test]
fn a_due_time_outside_the_window_waits_for_it_and_is_missed_when_it_closes() {
    let mut schedule = schedule("0 12 * * *", "UTC");
    let window =
        MaintenanceWindow { days: Vec::new(), start: "02:00".into(), end: "06:00".into(), timezone: "UTC".into() };
    schedule.spec.maintenance_window = Some(window);
    let begun = newer();
    let decided = |now: &str| recurring(&facts(&schedule, &[], Some(&begun), at(now)));
    let opens = at("2026-11-23T02:00:00Z");
    assert!(matches!(decided("2026-11-22T12:00:00Z"), Decision::AwaitWindow { until, .. } if until == opens));
    assert!(matches!(decided("2026-11-23T05:59:00Z"), Decision::Create { .. }));
    assert!(matches!(decided("2026-11-23T06:00:00Z"), Decision::Missed { .. }));
}

#[test]
fn an_update_that_is_not_over_is_waited_out_replaced_or_joined_as_the_policy_says() {
    let mut schedule = schedule("0 2 * * *", "UTC");
    schedule.status = Some(UpdateScheduleStatus {
        handled_until: Some(at("2026-11-22T02:00:00Z")),
        observed_generation: Some(1),
        ..UpdateScheduleStatus::default()
    });
    let active = [OwnUpdate { name: "before".into(), due: at("2026-11-22T02:00:00Z"), over: false, trouble: None }];
    let begun = newer();
    let mut decided = |policy| {
        schedule.spec.concurrency_policy = policy;
        recurring(&facts(&schedule, &active, Some(&begun), at("2026-11-23T02:00:00Z")))
    };
    assert!(matches!(decided(ConcurrencyPolicy::Forbid), Decision::Skipped { active, .. } if active == "before"));
    assert!(matches!(decided(ConcurrencyPolicy::Replace), Decision::Create { replaces, .. } if replaces == ["before"]));
    assert!(matches!(decided(ConcurrencyPolicy::Allow), Decision::Create { replaces, .. } if replaces.is_empty()));
}

#[test]
fn a_changed_spec_counts_from_when_it_is_seen_and_a_suspended_one_not_at_all() {
    let mut schedule = schedule("0 2 * * *", "UTC");
    schedule.metadata.generation = Some(2);
    schedule.status = Some(UpdateScheduleStatus { observed_generation: Some(1), ..UpdateScheduleStatus::default() });
    let now = at("2026-11-22T02:10:00Z");
    let decided = recurring(&facts(&schedule, &[], None, now));
    assert_eq!(decided, Decision::Anew { passed: Some(at("2026-11-22T02:00:00Z")) });
    schedule.status = Some(UpdateScheduleStatus { observed_generation: Some(2), ..UpdateScheduleStatus::default() });
    schedule.spec.suspended = true;
    assert_eq!(recurring(&facts(&schedule, &[], None, now)), Decision::Suspended);
}

#[test]
fn the_newest_known_patch_is_taken_and_nothing_where_it_is_already() {
    let policy: UpdatePolicy = serde_json::from_value(json!({"targetVersionPattern": "latest-patch"})).unwrap();
    let chosen = |text: &str, snapshot: &ClusterSnapshot| choose(Pattern::of(text).unwrap(), &policy, snapshot);
    let there = newer();
    assert_eq!(chosen("latest-patch", &there), Choice::Take(v("1.33.7")));
    assert_eq!(chosen("1.34.*", &there), Choice::Take(v("1.34.2")));
    assert_eq!(chosen("v1.33.5", &there), Choice::Take(v("1.33.5")));
    assert_eq!(chosen("1.32.9", &there), Choice::Newer(v("1.33.4")));
    let mut newest = cluster(1, 1, "1.33.7");
    newest.known_versions = ["1.33.4", "1.33.7"].map(v).into();
    assert_eq!(chosen("latest-patch", &newest), Choice::There(v("1.33.7")));
    newest.nodes.get_mut("w-01").unwrap().kubelet = v("1.33.4");
    assert_eq!(chosen("1.33.*", &newest), Choice::Take(v("1.33.7")), "a worker was left behind");
    assert_eq!(Pattern::of("1.99999999999.*").unwrap_err().code, "InvalidVersionPattern");
}

fn scheduled(status: &serde_json::Value) -> ScheduledUpdate {
    serde_json::from_value(json!({
        "apiVersion": "cupcake.ricardomolendijk.com/v1", "kind": "ScheduledUpdate",
        "metadata": {"name": "weekend", "uid": "0b0cbb6e", "generation": 1},
        "spec": {"targetVersion": "1.34.4", "scheduleAt": "2027-01-09T22:00:00Z"}, "status": status,
    }))
    .unwrap()
}

#[test]
fn a_scheduled_update_is_created_once_within_its_deadline_and_followed_to_its_end() {
    let decided = |status: serde_json::Value, present, now: &str| {
        once(&OnceFacts { scheduled: &scheduled(&status), present, now: at(now) })
    };
    let own = |phase| Present::Own { created: at("2027-01-09T22:00:01Z"), phase };
    let (before, late) = ("2027-01-09T21:59:59Z", "2027-01-09T23:00:00Z");
    let due = "2027-01-09T22:00:00Z";
    assert_eq!(decided(json!({}), Present::Nothing, before), Once::Wait { until: at(due) });
    assert_eq!(decided(json!({}), Present::Nothing, due), Once::Create { name: "weekend".into() });
    assert_eq!(decided(json!({}), Present::Nothing, late), Once::Missed { latest: at(late) });
    assert!(matches!(decided(json!({}), own(Phase::Pending), late), Once::Follow { .. }), "created before a crash");
    assert!(matches!(decided(json!({}), Present::Foreign, due), Once::Stalled(problem) if problem.code == "NameTaken"));
    let executing = json!({"directUpdateName": "weekend", "phase": "Executing"});
    assert!(matches!(decided(executing.clone(), own(Phase::Succeeded), due), Once::Follow { .. }));
    assert_eq!(decided(executing, Present::Nothing, due), Once::Gone { name: "weekend".into() }, "never again");
    let over = json!({"directUpdateName": "weekend", "phase": "Completed"});
    assert_eq!(decided(over, Present::Nothing, due), Once::Over);
}

#[test]
fn names_are_valid_and_bounded_however_long_the_schedule_is_called() {
    let due = at("2026-12-01T02:00:00Z");
    assert_eq!(update_name("monthly", "0b0cbb6e-5a0e", due), "monthly-20261201-0200");
    let long = format!("{}.{}", "a".repeat(146), "b".repeat(100));
    let name = update_name(&long, "0B0CBB6E-5a0e", due);
    assert!(name.len() <= 171 && name.ends_with("-0b0cbb6e-20261201-0200") && !name.contains(".-"), "{name}");
    assert!(once_name(&long, "0b0cbb6e").len() <= 171);
}

/// Everything of a DirectUpdate that both kinds of schedules may say.
fn consent() -> serde_json::Value {
    json!({
        "acknowledge": [{"check": "CgroupV1", "node": "w-01"}], "components": ["kubelet"], "concurrency": "25%",
        "drain": {"deleteEmptyDirData": true, "podTimeout": "30s"}, "maxFailures": 2, "nodeSelector": {"pool": "blue"},
        "nodeTimeout": "2700s", "preflightChecks": false, "strategy": "parallel",
    })
}

#[test]
fn what_is_created_says_everything_that_the_schedule_says() {
    let with = |more: serde_json::Value| {
        let mut spec = consent();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let canary = json!({"enabled": true, "nodes": ["w-01"]});
    let both = json!({"targetVersion": "1.34.4", "canary": canary, "airGapped": {"enabled": false}, "path": ["1.33.7", "1.34.4"]});
    let mut once = with(both.clone());
    once["scheduleAt"] = "2027-01-09T22:00:00Z".into();
    let created = serde_json::to_value(scheduled_spec(&serde_json::from_value(once).unwrap())).unwrap();
    let expected = with(
        json!({"dryRun": false, "targetVersion": "1.34.4", "canary": canary, "airGapped": {"enabled": false}, "path": ["1.33.7", "1.34.4"]}),
    );
    assert_eq!(created, expected);

    let policy = with(json!({"targetVersionPattern": "1.34.*", "path": ["1.32.9", "1.33.7", "1.34.2", "1.35.0"]}));
    let window = json!({"start": "22:00", "end": "04:00", "timezone": "UTC", "days": ["Saturday"]});
    let schedule = json!({"schedule": "0 2 * * *", "updatePolicy": policy, "maintenanceWindow": window});
    let schedule: UpdateScheduleSpec = serde_json::from_value(schedule).unwrap();
    let created = serde_json::to_value(policy_now(&schedule, &newer()).unwrap().unwrap()).unwrap();
    let way =
        json!({"dryRun": false, "targetVersion": "1.34.2", "path": ["1.33.7", "1.34.2"], "maintenanceWindow": window});
    assert_eq!(created, with(way), "of the way counts what lies before the cluster");
    let there = policy_spec(&schedule, v("1.34.1"), v("1.34.2"));
    assert_eq!(there.path, Vec::<String>::new(), "the way of then is behind it");
}

#[test]
fn workers_that_a_schedule_does_not_select_do_not_keep_it_from_being_done() {
    let policy = json!({"targetVersionPattern": "latest-patch", "nodeSelector": {"pool": "blue"}});
    let policy: UpdatePolicy = serde_json::from_value(policy).unwrap();
    let mut snapshot = cluster(1, 1, "1.33.7");
    snapshot.known_versions = ["1.33.7"].map(v).into();
    let worker = snapshot.nodes.get_mut("w-01").unwrap();
    worker.kubelet = v("1.33.4");
    let chosen = |snapshot: &ClusterSnapshot| choose(Pattern::LatestPatch, &policy, snapshot);
    assert_eq!(chosen(&snapshot), Choice::There(v("1.33.7")));
    let blue = ("pool".to_owned(), "blue".to_owned());
    snapshot.nodes.get_mut("w-01").unwrap().labels.extend([blue]);
    assert_eq!(chosen(&snapshot), Choice::Take(v("1.33.7")));
    let mut behind = snapshot.clone();
    behind.nodes.get_mut("w-01").unwrap().labels.clear();
    behind.nodes.values_mut().find(|node| node.role == NodeRole::ControlPlane).unwrap().kubelet = v("1.33.4");
    assert_eq!(chosen(&behind), Choice::Take(v("1.33.7")), "control-plane nodes follow whatever is selected");
}
