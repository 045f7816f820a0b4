//! Writes the custom resource definitions to `crds/generated/`; with `--check`, only says whether they are current.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a generator: its arguments, its files and its report are all that it is"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Number, Value};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const COMMAND: &str = "cargo run -p cupcake-crds --bin crdgen";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => write(&folder),
        ["--check"] => check(&folder),
        _ => {
            eprintln!("usage: crdgen [--check]");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn write(folder: &Path) -> Result<ExitCode, Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for (name, text) in manifests()? {
        let path = folder.join(name);
        fs::write(&path, text)?;
        println!("{}", path.display());
    }
    for path in strangers(folder)? {
        fs::remove_file(&path)?;
        println!("{} removed: there is no such kind", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn check(folder: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let mut stale = strangers(folder)?;
    for (name, text) in manifests()? {
        let path = folder.join(name);
        // A file that cannot be read is as stale as one that differs.
        if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            stale.push(path);
        }
    }
    if stale.is_empty() {
        println!("{} is current", folder.display());
        return Ok(ExitCode::SUCCESS);
    }
    for path in stale {
        eprintln!("{} is not what the types say", path.display());
    }
    eprintln!("run: {COMMAND}");
    Ok(ExitCode::FAILURE)
}

/// Files in `folder` that belong to no kind.
fn strangers(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let names: Vec<String> = manifests()?.into_iter().map(|(name, _)| name).collect();
    let mut strangers = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !names.iter().any(|name| entry.file_name() == name.as_str()) {
                strangers.push(entry.path());
            }
        }
    }
    strangers.sort();
    Ok(strangers)
}

/// Each kind's file name and text; the same types always give the same bytes.
fn manifests() -> Result<Vec<(String, String)>, Box<dyn Error>> {
    cupcake_crds::definitions()
        .iter()
        .map(|definition| Ok((format!("{}.yaml", definition.spec.names.plural), manifest(definition)?)))
        .collect()
}

fn manifest(definition: &CustomResourceDefinition) -> Result<String, Box<dyn Error>> {
    let mut value = serde_json::to_value(definition)?;
    whole_numbers(&mut value);
    let yaml = serde_saphyr::to_string(&value)?;
    Ok(format!("# Written by `{COMMAND}` from the types in crds/src; not to be edited.\n{yaml}"))
}

/// Bounds are floating-point numbers in the definition's type; `maximum: 250` reads better than `250.0`, and is what a server answers.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn whole(number: &Number) -> Option<Number> {
    let text = number.to_string();
    let digits = text.strip_suffix(".0")?;
    digits.parse::<i64>().ok().map(Number::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_definitions_are_what_the_types_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
        let stale: Vec<String> = manifests()
            .expect("definitions have a YAML form")
            .into_iter()
            .filter(|(name, text)| fs::read_to_string(folder.join(name)).ok().as_deref() != Some(text.as_str()))
            .map(|(name, _)| name)
            .collect();
        assert!(stale.is_empty(), "{stale:?} differ from the types; run: {COMMAND}");
        assert!(strangers(&folder).expect("the folder is readable").is_empty());
    }

    #[test]
    fn bounds_are_written_as_whole_numbers() {
        for (name, text) in manifests().expect("definitions have a YAML form") {
            assert!(!text.lines().any(|line| line.trim_end().ends_with(".0") && line.contains("imum:")), "{name}");
        }
    }
}
