//! What a test needs of the machine, and is left out without.

use std::{
    env,
    io::{self, Write as _},
};

/// Something that not every machine has. Each is a variable of the environment: set to `required`, a test that lacks it fails
/// instead of being left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root, network namespaces, and the programs that the tests run: `BALANCER_LAB`.
    Lab,
    /// Modules of the kernel: `BALANCER_MODULES`.
    Modules,
}

impl Need {
    const fn variable(self) -> &'static str {
        match self {
            Self::Lab => "BALANCER_LAB",
            Self::Modules => "BALANCER_MODULES",
        }
    }

    /// Says that a test is left out, where it is read also if the test passes.
    ///
    /// # Panics
    ///
    /// When what is needed is `required`.
    pub fn leave_out(self, test: &str, reason: &str) {
        let variable = self.variable();
        assert!(
            env::var_os(variable).is_none_or(|value| value != "required"),
            "{test} is left out, against {variable}=required: {reason}"
        );
        // Not by a macro: what those print of a test that passes is not shown.
        let _ = writeln!(io::stderr(), "{test} is left out: {reason}");
    }
}
