//! Writes the custom resource definitions to `crds/generated/`, or checks that they are current.
#![allow(clippy::print_stdout)]

use kube_core::ResourceExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for definition in cupcake_crds::definitions() {
        println!("# {}\n{}", definition.name_any(), serde_saphyr::to_string(&definition)?);
    }
    Ok(())
}
