//! Watches: resuming, selecting, bookmarks, expiry, and kube's watcher on top.

use super::{node, pod, send, server, server_with};
use crate::api::{Options, Server};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use std::time::Duration;

async fn label(server: &Server, name: &str, value: &str) {
    let patch = json!({"metadata": {"labels": {"tier": value}}});
    send(server, "PATCH", &format!("/api/v1/nodes/{name}"), patch).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_after_the_revision_it_names() {
    let server = server();
    let (_, created) = send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    label(&server, "w1", "a").await;
    send(&server, "DELETE", "/api/v1/nodes/w1", json!(null)).await;
    let nodes: Api<Node> = Api::all(server.client("agent"));
    let events: Vec<WatchEvent<Node>> =
        nodes.watch(&WatchParams::default().timeout(5), revision).await.unwrap().try_collect().await.unwrap();
    let words: Vec<&str> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => "bookmark",
            WatchEvent::Error(_) => "error",
        })
        .collect();
    assert_eq!(words, ["modified", "deleted", "bookmark"]);
    assert_eq!(server.open_watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn objects_that_begin_or_cease_to_match_are_added_or_deleted() {
    let server = server();
    send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let nodes: Api<Node> = Api::all(server.client("agent"));
    let params = WatchParams::default().labels("tier=front").timeout(5);
    let mut events = nodes.watch(&params, "0").await.unwrap().boxed();
    label(&server, "w1", "front").await;
    label(&server, "w1", "back").await;
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
}

#[tokio::test(start_paused = true)]
async fn a_watch_by_name_sees_only_its_object() {
    let server = server();
    let nodes: Api<Node> = Api::all(server.client("agent"));
    let params = WatchParams::default().fields("metadata.name=w2").timeout(5);
    let mut events = nodes.watch(&params, "0").await.unwrap().boxed();
    for name in ["w1", "w2", "w3"] {
        send(&server, "POST", "/api/v1/nodes", node(name)).await;
    }
    let Some(WatchEvent::Added(seen)) = events.try_next().await.unwrap() else { panic!("expected an addition") };
    assert_eq!(seen.name_any(), "w2");
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Bookmark(_))));
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_left_the_history_is_expired() {
    let server = server_with(Options { history_events_max: 2, ..Options::default() });
    for at in 0..5 {
        send(&server, "POST", "/api/v1/nodes", node(&format!("w{at}"))).await;
    }
    let nodes: Api<Node> = Api::all(server.client("agent"));
    let mut events = nodes.watch(&WatchParams::default(), "2").await.unwrap().boxed();
    let Some(WatchEvent::Error(status)) = events.try_next().await.unwrap() else { panic!("expected an error") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}

/// Reads events until `count` objects were applied or deleted.
async fn collect(stream: impl futures::Stream<Item = watcher::Result<Event<Node>>>, count: usize) -> Vec<String> {
    let mut stream = std::pin::pin!(stream);
    let mut seen = Vec::new();
    while seen.len() < count {
        match stream.next().await.unwrap() {
            Ok(Event::Apply(node) | Event::InitApply(node)) => seen.push(node.name_any()),
            Ok(Event::Delete(node)) => seen.push(format!("-{}", node.name_any())),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => panic!("{error}"),
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn kubes_watcher_follows_by_list_and_by_streaming_list() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let server = server();
        send(&server, "POST", "/api/v1/nodes", node("w1")).await;
        let nodes: Api<Node> = Api::all(server.client("operator"));
        let writer = {
            let server = server.clone();
            tokio::spawn(async move {
                // Past the first watch's end: the watcher has to come back.
                tokio::time::sleep(Duration::from_secs(700)).await;
                send(&server, "POST", "/api/v1/nodes", node("w2")).await;
                send(&server, "DELETE", "/api/v1/nodes/w1", json!(null)).await;
            })
        };
        let seen = collect(watcher(nodes, config), 3).await;
        assert_eq!(seen, ["w1", "w2", "-w1"]);
        writer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn kubes_watcher_lists_again_after_expiry() {
    let server = server_with(Options { history_events_max: 1, ..Options::default() });
    send(&server, "POST", "/api/v1/nodes", node("w1")).await;
    let nodes: Api<Node> = Api::all(server.client("operator"));
    let mut stream = watcher(nodes, watcher::Config::default()).boxed();
    while !matches!(stream.next().await, Some(Ok(Event::InitDone))) {}
    // The watch ends, and what happens before it comes back is forgotten.
    server.close_watches();
    for at in 2..6 {
        send(&server, "POST", "/api/v1/nodes", node(&format!("w{at}"))).await;
    }
    let mut names = Vec::new();
    let mut errors = 0;
    while names.len() < 5 {
        match stream.next().await.unwrap() {
            Ok(Event::InitApply(node) | Event::Apply(node)) => names.push(node.name_any()),
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
            Err(_expired) => errors += 1,
        }
    }
    assert_eq!(names, ["w1", "w2", "w3", "w4", "w5"]);
    assert_eq!(errors, 1);
}

#[tokio::test(start_paused = true)]
async fn pods_are_watched_by_node() {
    let server = server();
    let pods: Api<Pod> = Api::all(server.client("kubelet"));
    let params = WatchParams::default().fields("spec.nodeName=n1").timeout(5);
    let mut events = pods.watch(&params, "0").await.unwrap().boxed();
    for (name, on) in [("a", "n2"), ("b", "n1")] {
        send(&server, "POST", "/api/v1/namespaces/default/pods", pod(name, on)).await;
    }
    let Some(WatchEvent::Added(seen)) = events.try_next().await.unwrap() else { panic!("expected an addition") };
    assert_eq!(seen.name_any(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lags_too_far_is_ended() {
    let server = server_with(Options { watch_lines_max: 3, ..Options::default() });
    let nodes: Api<Node> = Api::all(server.client("slow"));
    let events = nodes.watch(&WatchParams::default().timeout(60), "0").await.unwrap();
    for at in 0..10 {
        send(&server, "POST", "/api/v1/nodes", node(&format!("w{at}"))).await;
    }
    let seen: Vec<WatchEvent<Node>> = events.try_collect().await.unwrap();
    assert_eq!(seen.len(), 3);
}
