//! Hops within a minor that a fact asks for before the next one: where there is one, where not, and what is said of it.

use crate::testing::{cluster, compiled, spec, v};
use crate::{Code, Compilation, Compiled, HopSummary, Refusal, own_facts};
use cupcake_crds::values::ClusterSnapshot;
use serde_json::{Value, json};

fn planned(from: &str, fields: &Value, change: impl Fn(&mut ClusterSnapshot)) -> Result<Compiled, Refusal> {
    let mut snapshot = cluster(3, 2, from);
    change(&mut snapshot);
    compiled(&spec(fields), &snapshot).map(|compilation| match compilation {
        Compilation::Plan(plan) => plan,
        Compilation::NothingToDo(nothing) => panic!("{}", nothing.message),
    })
}

/// The versions on the way; those with a reason have a star.
fn way(from: &str, fields: &Value, change: impl Fn(&mut ClusterSnapshot)) -> String {
    let plan = planned(from, fields, change).unwrap();
    let star = |hop: &HopSummary| if hop.reason.is_some() { "*" } else { "" };
    let hops = plan.summary.hops.iter().map(|hop| format!("{}{}", hop.version, star(hop)));
    hops.collect::<Vec<_>>().join(" ")
}

/// The fact of these tests, as somebody may have it: 1.33 is left from 1.33.6 on.
fn fact() -> Value {
    let why = "kubeadm before 1.33.6 brings an etcd older than 3.5.24";
    json!({"oldestPatch": 6, "why": why, "source": "https://etcd.io/blog/2025/upgrade_from_3.5_to_3.6_issue_followup/"})
}

fn asked(snapshot: &mut ClusterSnapshot) {
    facts(&json!({"leaveFrom": fact()}))(snapshot);
}

fn facts(of_33: &Value) -> impl Fn(&mut ClusterSnapshot) + use<> {
    let own = own_facts(json!({"minors": {"1.33": of_33}})).unwrap();
    move |snapshot| snapshot.facts = own.clone()
}

#[test]
fn a_patch_hop_is_there_only_where_a_fact_asks_for_it_and_through_the_newest_patch() {
    let to = |target: &str| json!({"targetVersion": target});
    assert_eq!(way("1.33.5", &to("1.34.4"), asked), "1.33.13* 1.34.4");
    assert_eq!(way("1.33.0", &to("1.35.4"), asked), "1.33.13* 1.34.4 1.35.4");
    assert_eq!(way("1.33.6", &to("1.34.4"), asked), "1.34.4", "what the fact asks for is there");
    assert_eq!(way("1.33.1", &to("1.33.4"), asked), "1.33.4", "the minor is not left");
    assert_eq!(way("1.32.1", &to("1.33.2"), asked), "1.33.2", "of 1.32 nothing of the kind is known");
    assert_eq!(way("1.32.1", &to("1.34.4"), asked), "1.33.13 1.34.4", "it is on the way in any case");
    let offered = |versions: &[&str]| {
        let versions = versions.iter().map(|version| v(version)).collect();
        move |snapshot: &mut ClusterSnapshot| {
            asked(snapshot);
            snapshot.known_versions.clone_from(&versions);
        }
    };
    assert_eq!(way("1.33.2", &to("1.34.4"), offered(&["1.33.8", "1.33.2"])), "1.33.8* 1.34.4", "the newest offered");
    assert_eq!(
        way("1.33.2", &to("1.34.4"), offered(&["1.33.4", "1.33.2"])),
        "1.33.13* 1.34.4",
        "an index may not have been refreshed for long"
    );
    assert_eq!(way("1.32.1", &to("1.34.4"), offered(&["1.33.4"])), "1.33.13 1.34.4", "nor is 1.33.4 gone through");
}

#[test]
fn the_control_plane_alone_moves_in_a_patch_hop_and_its_plan_says_why() {
    let plan = planned("1.33.2", &json!({}), asked).unwrap();
    let hop = &plan.summary.hops[0];
    assert_eq!((hop.version, hop.control_plane.len(), hop.kubelets.len(), hop.workers), (v("1.33.13"), 3, 3, 0));
    assert_eq!(plan.summary.hops[1].workers, 2, "once, and then to the target");
    let reason = hop.reason.clone().unwrap();
    assert!(reason.contains("older than 3.5.24") && reason.contains("etcd.io"), "{reason}");
    let lines = plan.summary.lines();
    assert_eq!(lines[1..3], ["hop 1/2, 1.33.13".to_owned(), format!("     a patch first: {reason}")]);
    let cut = |line: &String| line.chars().count() > cupcake_crds::limits::GRAPH_LINE_CHARS_MAX;
    assert!(!lines.iter().any(cut), "a status shows all of it: {lines:#?}");
    assert_eq!(json!(plan.summary)["hops"][0]["reason"], json!(reason));
    assert!(json!(plan.summary)["hops"][1].get("reason").is_none());
    let warning = plan.report.warnings.iter().find(|warning| warning.code == Code::PatchFirst).unwrap();
    assert_eq!((warning.field.as_str(), warning.value.as_str()), ("Kubernetes 1.33", "1.33.13"));
    assert!(warning.message.contains(&reason) && warning.remedy.contains("leaveFrom"), "{warning}");
    assert!(!plan.report.warnings.iter().any(|warning| warning.code == Code::AvoidedRelease));
}

#[test]
fn a_worker_that_would_not_fit_the_next_minor_moves_in_the_patch_hop() {
    let plan = planned("1.33.2", &json!({}), |snapshot| {
        asked(snapshot);
        snapshot.nodes.get_mut("w-02").unwrap().kubelet = v("1.30.9");
    });
    let hops: Vec<_> = plan.unwrap().summary.hops.into_iter().map(|hop| (hop.version, hop.workers)).collect();
    assert_eq!(hops, [(v("1.33.13"), 1), (v("1.34.4"), 2)], "as the skew policy has it, and not before it");
}

#[test]
fn facts_of_ones_own_ask_for_another_patch_for_none_and_of_other_minors() {
    let to_34 = json!({});
    assert_eq!(
        way("1.33.6", &to_34, facts(&json!({"leaveFrom": {"oldestPatch": 9, "why": "ours"}}))),
        "1.33.13* 1.34.4"
    );
    assert_eq!(way("1.33.2", &to_34, facts(&json!({"leaveFrom": null}))), "1.34.4");
    let of_34 = own_facts(json!({"minors": {"1.34": {"leaveFrom": {"oldestPatch": 3, "why": "ours are broken"}}}}));
    let of_34 = of_34.unwrap();
    let both = |snapshot: &mut ClusterSnapshot| snapshot.facts.clone_from(&of_34);
    let to_35 = json!({"targetVersion": "1.35.4"});
    assert_eq!(way("1.34.2", &to_35, both), "1.34.4* 1.35.4");
    assert_eq!(way("1.33.2", &to_35, both), "1.34.4 1.35.4", "of 1.33 nothing is asked for by itself");
}

#[test]
fn where_no_patch_is_known_that_a_fact_asks_for_the_way_is_refused_with_versions_reason_and_way_out() {
    let unknown = facts(&json!({"newestPatch": 4, "leaveFrom": fact()}));
    for from in ["1.33.2", "1.32.13"] {
        let refusal = planned(from, &json!({}), &unknown).unwrap_err();
        assert_eq!((refusal.code(), refusal.findings.len()), (Code::PatchFirst, 1), "{refusal}");
        let told = refusal.to_string();
        for part in [
            format!("the way from {from} goes on to 1.34 from 1.33.6 or newer only").as_str(),
            "1.33.4 is the newest release of 1.33 that is known",
            "older than 3.5.24",
            "[..., 1.33.6, ..., 1.34.4]",
            "newestPatch of 1.33 in ConfigMap kube-system/cupcake-versions",
            "leaveFrom",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    let named = json!({"path": ["1.33.7", "1.34.4"]});
    assert_eq!(way("1.33.2", &named, &unknown), "1.33.7* 1.34.4", "whoever names one knows it");
}

#[test]
fn a_path_that_leaves_a_minor_too_early_is_refused_by_the_hop_that_does() {
    let path = |from: &str, path: &[&str]| planned(from, &json!({"path": path}), asked).map(|_| ());
    let refusal = path("1.33.2", &["1.33.5", "1.34.4"]).unwrap_err();
    assert_eq!((refusal.code(), refusal.findings[0].field.as_str()), (Code::PatchFirst, "spec.path[1]"));
    for part in ["no hop from 1.33.5", "1.33 is left from 1.33.6 or newer only", "name 1.33.13 before it", "leaveFrom"]
    {
        assert!(refusal.to_string().contains(part), "{part}: {refusal}");
    }
    assert_eq!(path("1.33.2", &["1.34.4"]).unwrap_err().findings[0].field, "spec.path[0]");
    path("1.33.2", &["1.33.5", "1.33.6", "1.34.4"]).unwrap();
    path("1.32.1", &["1.33.6", "1.34.4"]).unwrap();
    assert_eq!(path("1.32.1", &["1.33.0", "1.34.4"]).unwrap_err().code(), Code::PatchFirst);
    planned("1.33.2", &json!({"path": ["1.34.4"]}), facts(&json!({"leaveFrom": null}))).unwrap();
}

#[test]
fn what_kubeadm_has_begun_is_gone_on_with() {
    let begun = |version: &'static str| {
        move |snapshot: &mut ClusterSnapshot| {
            asked(snapshot);
            snapshot.kubeadm_config = Some(v(version));
        }
    };
    assert_eq!(way("1.33.2", &json!({}), begun("1.34.4")), "1.34.4", "its first node is there: too late for a patch");
    assert_eq!(way("1.33.2", &json!({"path": ["1.34.4"]}), begun("1.34.4")), "1.34.4");
    assert_eq!(way("1.33.2", &json!({}), begun("1.33.4")), "1.33.13* 1.34.4", "a patch of before the fact");
    let past = |snapshot: &mut ClusterSnapshot| {
        begun("1.33.9")(snapshot);
        snapshot.known_versions = [v("1.33.7")].into();
    };
    assert_eq!(way("1.33.2", &json!({}), past), "1.33.9* 1.34.4", "kubeadm never goes back");
}
