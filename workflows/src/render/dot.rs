//! A plan as a graph in the DOT language, for Graphviz and its kin.

use super::words::State;
use cupcake_engine::cursor::{Cursor, VertexState};
use cupcake_engine::dag::Dag;
use std::fmt::Write as _;

/// The graph in DOT: an arrow to each vertex from what it comes after, dashed from its guard; coloured by state if a cursor is given.
/// Vertices of one lane share a frame.
pub fn dot(dag: &Dag, cursor: Option<&Cursor>) -> String {
    let mut text =
        String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box, style=filled, fontname=monospace];\n");
    let mut lane: Option<&str> = None;
    for vertex in dag.vertices() {
        if vertex.lane.as_deref() != lane {
            if lane.is_some() {
                text.push_str("  }\n");
            }
            lane = vertex.lane.as_deref();
            if let Some(lane) = lane {
                let _ = writeln!(
                    text,
                    "  subgraph {} {{\n    label={};",
                    quoted(&format!("cluster {} {}", lane, vertex.name)),
                    quoted(lane)
                );
            }
        }
        let indent = if lane.is_some() { "    " } else { "  " };
        let state = cursor.and_then(|cursor| cursor.state(&vertex.name));
        let _ = writeln!(text, "{indent}{} [fillcolor={}];", quoted(vertex.name.as_str()), colour(state));
    }
    if lane.is_some() {
        text.push_str("  }\n");
    }
    for vertex in dag.vertices() {
        let to = quoted(vertex.name.as_str());
        for before in &vertex.after {
            let _ = writeln!(text, "  {} -> {to};", quoted(before.as_str()));
        }
        if let Some(guard) = &vertex.guard {
            let _ = writeln!(text, "  {} -> {to} [style=dashed];", quoted(guard.as_str()));
        }
    }
    text.push_str("}\n");
    text
}

fn colour(state: Option<VertexState>) -> &'static str {
    match state.map_or(State::Pending, State::of) {
        State::Pending => "white",
        State::Skipped => "gray",
        State::Done => "palegreen",
        State::Running => "lightskyblue",
        State::BackingOff | State::Waiting => "khaki",
        State::Failed => "lightcoral",
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
