//! Errors as users see them.

/// An error and what it came from, in one line. What a message repeats of its source is not written twice.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_once() {
        let error = anyhow::anyhow!("no such file")
            .context("lb.toml: no such file")
            .context("cannot start");
        assert_eq!(chain(error.as_ref()), "cannot start: lb.toml: no such file");
    }
}
