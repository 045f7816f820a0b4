//! Error classes in the runner's journal. The engine keeps a reason's code and message, and the answer to an order needs
//! besides what to do next; so the class travels behind the code, inside the journal only: `AptLockHeld/Transient`.

use async_trait::async_trait;
use cupcake_crds::node_task::{ErrorClass, TaskError};
use cupcake_engine::names::Reason;
use cupcake_engine::registry::{RegistryError, StepRegistry};
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome};
use cupcake_steps::host::Register;
use cupcake_steps::ports::host::Machine;

/// A registry whose steps leave the class of their errors behind the code.
pub(crate) struct Classing(pub(crate) StepRegistry<Machine>);

impl Register for Classing {
    fn step<S: Step<Machine>>(&mut self, step: S) -> Result<(), RegistryError> {
        self.0.register(Classed(step)).map(drop)
    }
}

struct Classed<S>(S);

#[async_trait]
impl<S: Step<Machine>> Step<Machine> for Classed<S> {
    const KIND: &'static str = S::KIND;
    type Params = S::Params;
    type Output = S::Output;
    const ON_CANCEL: OnCancel = S::ON_CANCEL;

    async fn probe(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<Probe<Self::Output>, StepError> {
        self.0.probe(ctx, params).await.map_err(marked)
    }

    async fn apply(
        &self,
        ctx: &StepContext<'_, Machine>,
        params: &Self::Params,
    ) -> Result<StepOutcome<Self::Output>, StepError> {
        self.0.apply(ctx, params).await.map_err(marked)
    }
}

fn marked(error: StepError) -> StepError {
    let mark = |reason: Reason, class| Reason::new(format!("{}/{class}", reason.code), reason.message);
    match error {
        StepError::Transient(reason) => StepError::Transient(mark(reason, "Transient")),
        StepError::Permanent(reason) => StepError::Permanent(mark(reason, "Permanent")),
        StepError::NeedsOperator(reason) => StepError::NeedsOperator(mark(reason, "NeedsOperator")),
    }
}

/// The error of a reason from the journal. One without a class is the engine's own: only its deadline may be met another time.
pub(crate) fn error_of(reason: &Reason) -> TaskError {
    let error = |class, code: &str| TaskError { class, code: code.to_owned(), message: reason.message.clone() };
    match reason.code.split_once('/') {
        Some((code, "Transient")) => error(ErrorClass::Transient, code),
        Some((code, "Permanent")) => error(ErrorClass::Permanent, code),
        Some((code, _)) => error(ErrorClass::NeedsOperator, code),
        None if reason.code == "DeadlineExceeded" => error(ErrorClass::Transient, &reason.code),
        None => error(ErrorClass::Permanent, &reason.code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_comes_back_from_the_journal_as_it_went_in() {
        let reason = || Reason::new("AptLockHeld", "another process holds /var/lib/dpkg/lock");
        for (error, class) in [
            (StepError::Transient(reason()), ErrorClass::Transient),
            (StepError::Permanent(reason()), ErrorClass::Permanent),
            (StepError::NeedsOperator(reason()), ErrorClass::NeedsOperator),
        ] {
            let back = error_of(marked(error).reason());
            assert_eq!((back.class, back.code.as_str()), (class, "AptLockHeld"));
            assert_eq!(back.message, reason().message);
        }
        assert_eq!(error_of(&Reason::new("DeadlineExceeded", "late")).class, ErrorClass::Transient);
        assert_eq!(error_of(&Reason::new("BadOutput", "large")).class, ErrorClass::Permanent);
    }
}
