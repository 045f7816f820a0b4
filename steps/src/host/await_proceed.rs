//! `await-proceed/v1`: the order's second part may begin. Never in an order itself: the runner puts it between the parts.

use super::params;
use crate::mailbox::{Mailbox, run_name};
use crate::ports::host::Machine;
use async_trait::async_trait;
use chrono::TimeDelta;
use cupcake_engine::names::Reason;
use cupcake_engine::step::{OnCancel, Probe, Step, StepContext, StepError, StepOutcome, Wait};

/// The subject that changes with the mailbox.
pub const MAILBOX_SUBJECT: &str = "mailbox";
/// How soon the mailbox is looked at again if nothing is heard of it, in seconds.
const AGAIN_SECONDS: i64 = 60;

/// Waits until the order in the mailbox says `proceed`.
pub struct AwaitProceed;

#[async_trait]
impl Step<Machine> for AwaitProceed {
    const KIND: &'static str = params::AWAIT_PROCEED;
    type Params = params::AwaitProceed;
    type Output = ();
    /// Nothing is under way between the parts: this is the safe point.
    const ON_CANCEL: OnCancel = OnCancel::Leave;

    async fn probe(&self, ctx: &StepContext<'_, Machine>, _: &Self::Params) -> Result<Probe<()>, StepError> {
        let unreadable = |error| StepError::Transient(Reason::new("MailboxUnreadable", format!("{error}")));
        let mail = Mailbox::on(&*ctx.ports().disk).order().await.map_err(unreadable)?;
        let own = mail.filter(|mail| run_name(&mail.order.key) == *ctx.run());
        if own.is_some_and(|mail| mail.order.proceed) {
            return Ok(Probe::Satisfied(()));
        }
        let again = ctx.now() + TimeDelta::seconds(AGAIN_SECONDS);
        let reason = Reason::new("AwaitingProceed", "prepared; waits for the node to be drained");
        Ok(Probe::Wait(Wait::quiet(again, reason).on(MAILBOX_SUBJECT)))
    }

    async fn apply(&self, ctx: &StepContext<'_, Machine>, _: &Self::Params) -> Result<StepOutcome<()>, StepError> {
        // The probe says Satisfied or Wait, never that there is something to do here.
        Ok(StepOutcome::Wait(Wait::quiet(ctx.now(), Reason::new("AwaitingProceed", "looks again"))))
    }
}
