//! The causes of an error in one text.

use std::error::Error;

/// What aya says where the verifier said nothing.
const EMPTY_LOG: &str = "Verifier output:";

/// An error with its causes, from the outside in, each of them once: some errors of aya name their cause themselves, and others
/// leave that to whoever prints them.
pub(super) fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut text = without_empty_log(&error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        let said = without_empty_log(&cause.to_string());
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

fn without_empty_log(text: &str) -> String {
    let text = text.trim_end();
    text.strip_suffix(EMPTY_LOG).map_or(text, |text| text.trim_end().trim_end_matches('.')).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Odd {
        #[error("outside: {0}")]
        Names(#[source] Box<Odd>),
        #[error("the call failed")]
        Leaves(#[source] io::Error),
        #[error("the call returned {0}. Verifier output: {1}")]
        Load(#[source] io::Error, &'static str),
    }

    #[test]
    fn each_cause_is_said_once() {
        let io = || io::Error::from_raw_os_error(22);
        let said = |error: Odd| in_full(&Odd::Names(Box::new(error)));
        assert_eq!(said(Odd::Leaves(io())), "outside: the call failed: Invalid argument (os error 22)");
        assert_eq!(said(Odd::Load(io(), "")), "outside: the call returned Invalid argument (os error 22)");
        let with_log = "outside: the call returned Invalid argument (os error 22). Verifier output: R1 is bad";
        assert_eq!(said(Odd::Load(io(), "R1 is bad")), with_log);
    }
}
