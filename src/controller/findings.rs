//! The summary of a portal's conditions. Pure.
use super::classes::ResolvedClass;
use super::status::Found;
use super::validate::Mode;
use crate::api::condition::{Finding, LIVE, LOADING, READY, Truth};

/// Reason of `Ready` while a portal is disabled and everything is as that wants it.
pub const DISABLED: &str = "Disabled";

/// What a disabled portal still has outside, in words; `None` where that is nothing.
pub fn still_there(found: &Found) -> Option<String> {
    let named = found.resources.iter().map(|made| format!("{} in {}", made.name, made.system));
    match found.pending.as_slice() {
        [] if found.resources.is_empty() => None,
        [] => Some(format!(
            "enabled is false: what is served is removed, the claim is kept, and so is, switched off, {}",
            named.collect::<Vec<_>>().join(", ")
        )),
        pending => Some(format!("enabled is false; not done while writes are stopped: {}", pending.join("; "))),
    }
}

/// What a class lacks without which its pages can be served, but no password reset.
pub fn no_resets(class: &ResolvedClass) -> Option<String> {
    let spec = &class.spec;
    let lacks = match (&spec.mailbox, &spec.smtp) {
        (Some(_), Some(_)) => return None,
        (None, Some(_)) => "mail host (mailbox)",
        (Some(_), None) => "mail server (smtp)",
        (None, None) => "mail host (mailbox) and no mail server (smtp)",
    };
    Some(format!("no password can be reset: PortalClass {:?} names no {lacks}", class.name))
}

/// Switches that show in the reason of `Ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    pub mode: Mode,
    pub enabled: bool,
    pub retain: bool,
    pub adopt: bool,
}

/// `Ready`: false by the first false condition, unknown by the first unknown one, true only when every
/// condition that applies is true and `Live` is among them.
pub fn ready(findings: &[Finding], switches: Switches) -> Finding {
    if !switches.enabled && findings.iter().all(|f| f.truth == Truth::True) {
        return Finding::new(
            READY,
            Truth::False,
            DISABLED,
            "enabled is false: record and route are removed, the claim is kept",
        );
    }
    // Then nobody asks for the proof, and what is waited for says more than that it is missing.
    let loading = findings.iter().any(|f| f.reason == LOADING);
    for truth in [Truth::False, Truth::Unknown] {
        if let Some(worst) = findings.iter().find(|f| f.truth == truth && !(loading && f.type_ == LIVE)) {
            return Finding::new(READY, truth, worst.reason.clone(), format!("{}: {}", worst.type_, worst.message));
        }
    }
    if !findings.iter().any(|f| f.type_ == LIVE) {
        return Finding::new(READY, Truth::Unknown, "NotProved", "no proof of life yet");
    }
    let (reason, message) = match switches {
        Switches { mode: Mode::Paused, .. } => ("Paused", "serving; all writes are stopped by annotation"),
        Switches { mode: Mode::ObserveOnly, .. } => ("ObserveOnly", "serving; nothing is written outside"),
        Switches { adopt: true, .. } => ("LiveAdopted", "serving; a foreign record or route may be taken over"),
        Switches { retain: true, .. } => ("LiveRetain", "serving; record and route stay when the portal is deleted"),
        _ => ("Live", "serving"),
    };
    Finding::new(READY, Truth::True, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::{ACCEPTED, DNS_PROGRAMMED, ROUTE_PROGRAMMED};

    const PLAIN: Switches = Switches { mode: Mode::Full, enabled: true, retain: false, adopt: false };

    #[test]
    fn ready_is_never_true_without_proof() {
        let accepted = Finding::new(ACCEPTED, Truth::True, "Accepted", "");
        let live = |truth| Finding::new(LIVE, truth, "X", "y");
        let truth = |findings: &[Finding]| ready(findings, PLAIN).truth;
        assert_eq!(truth(&[]), Truth::Unknown);
        assert_eq!(truth(std::slice::from_ref(&accepted)), Truth::Unknown);
        assert_eq!(truth(&[accepted.clone(), live(Truth::True)]), Truth::True);
        assert_eq!(truth(&[accepted.clone(), live(Truth::False)]), Truth::False);
        assert_eq!(truth(&[accepted.clone(), live(Truth::Unknown)]), Truth::Unknown);
        assert_eq!(ready(&[accepted.clone(), live(Truth::False)], PLAIN).message, "Live: y");
        // when a system needs some seconds, then that is told, unless something else is wrong
        let loading = Finding::new(ROUTE_PROGRAMMED, Truth::Unknown, LOADING, "not yet");
        let waits = [loading.clone(), Finding::new(LIVE, Truth::False, "NotProgrammed", "waits")];
        let summary = ready(&waits, PLAIN);
        assert_eq!((summary.truth, summary.reason.as_str()), (Truth::Unknown, LOADING));
        let wrong = Finding::new(DNS_PROGRAMMED, Truth::False, "ZoneNotFound", "no zone");
        assert_eq!(ready(&[vec![wrong], waits.to_vec()].concat(), PLAIN).reason, "ZoneNotFound");
        let off = Switches { enabled: false, ..PLAIN };
        assert_eq!(ready(&[accepted], off).reason, "Disabled");
    }
}
