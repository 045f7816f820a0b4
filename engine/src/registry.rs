//! The steps that a process knows, by kind.

use crate::dag::Dag;
use crate::names::{InvalidName, StepKind, VertexName};
use crate::step::{Bound, Domain, Erased, ErasedStep, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a registration or a plan is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The step's kind is not a kind.
    #[error("step cannot be registered")]
    Kind(#[from] InvalidName),
    /// Two steps of one kind.
    #[error("step kind {0} is registered twice: a kind stands for one meaning")]
    Twice(StepKind),
    /// A plan names a kind that nobody registered.
    #[error(
        "vertex {vertex} needs step kind {kind}, which this release does not have: run the release that compiled the plan, or a newer one"
    )]
    UnknownKind {
        /// The vertex.
        vertex: VertexName,
        /// Its kind.
        kind: StepKind,
    },
    /// A plan holds parameters that the step cannot read.
    #[error("vertex {vertex} has parameters that step kind {kind} cannot read")]
    BadParameters {
        /// The vertex.
        vertex: VertexName,
        /// Its kind.
        kind: StepKind,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// The steps of a domain, by kind.
pub struct StepRegistry<D: Domain> {
    steps: BTreeMap<StepKind, Arc<dyn ErasedStep<D>>>,
}

impl<D: Domain> Default for StepRegistry<D> {
    fn default() -> Self {
        Self { steps: BTreeMap::new() }
    }
}

impl<D: Domain> StepRegistry<D> {
    /// No steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    pub fn register<S: Step<D>>(&mut self, step: S) -> Result<&mut Self, RegistryError> {
        let kind = StepKind::new(S::KIND)?;
        if self.steps.contains_key(&kind) {
            return Err(RegistryError::Twice(kind));
        }
        self.steps.insert(kind, Arc::new(Erased(step)));
        Ok(self)
    }

    /// The kinds that are registered, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &StepKind> {
        self.steps.keys()
    }

    /// Whether every vertex can be executed: its kind is known and can read its parameters.
    pub fn check(&self, dag: &Dag) -> Result<(), RegistryError> {
        for vertex in dag.vertices() {
            let step = self
                .get(&vertex.kind)
                .ok_or_else(|| RegistryError::UnknownKind { vertex: vertex.name.clone(), kind: vertex.kind.clone() })?;
            step.check_params(&vertex.params).map_err(|source| RegistryError::BadParameters {
                vertex: vertex.name.clone(),
                kind: step.kind(),
                source,
            })?;
        }
        Ok(())
    }

    /// The vertices that are bounded by what they watch (see [`Bound`]), whatever deadline their plan gives them.
    pub fn watchers(&self, dag: &Dag) -> BTreeSet<VertexName> {
        let watches = |kind| self.get(kind).is_some_and(|step| step.bound() == Bound::WhatItWatches);
        dag.vertices().iter().filter(|vertex| watches(&vertex.kind)).map(|vertex| vertex.name.clone()).collect()
    }

    pub(crate) fn get(&self, kind: &StepKind) -> Option<&Arc<dyn ErasedStep<D>>> {
        self.steps.get(kind)
    }
}
