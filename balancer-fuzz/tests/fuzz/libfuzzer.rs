//! libFuzzer, from within a test.

use std::env;
use std::ffi::{CString, c_char, c_int};
use std::panic::catch_unwind;
use std::process::abort;
use std::sync::OnceLock;

// For what it links.
use libfuzzer_sys as _;

static CHECK: OnceLock<fn(&[u8])> = OnceLock::new();

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(
        count: *mut c_int,
        arguments: *mut *mut *mut c_char,
        callback: extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

extern "C" fn callback(data: *const u8, length: usize) -> c_int {
    let input = if length == 0 {
        &[]
    } else {
        // SAFETY: libFuzzer gives so many bytes, which stay until this returns.
        unsafe { std::slice::from_raw_parts(data, length) }
    };
    let check = CHECK.get().unwrap();
    if catch_unwind(|| check(input)).is_err() {
        abort();
    }
    0
}

/// Asked for by an entry of `libfuzzer-sys` that is not used.
// SAFETY: nothing else has the name.
#[unsafe(no_mangle)]
#[allow(
    clippy::no_mangle_with_rust_abi,
    reason = "it is declared with this one"
)]
fn rust_fuzzer_test_input(_: &[u8]) -> i32 {
    0
}

/// Does what the arguments say; mostly that ends the process.
pub fn run(name: &str, check: fn(&[u8])) {
    CHECK.get_or_init(|| check);
    let program = env::current_exe().unwrap();
    // To merge, libFuzzer runs its first argument by a shell, with others behind it.
    let itself = format!("{} --exact {name} --nocapture --", program.display());
    let arguments = env::args().skip_while(|argument| argument != "--").skip(1);
    let arguments: Vec<CString> = [itself]
        .into_iter()
        .chain(arguments)
        .map(|argument| CString::new(argument).unwrap())
        .collect();
    let mut count = c_int::try_from(arguments.len()).unwrap();
    let mut pointers: Vec<*mut c_char> = arguments
        .iter()
        .map(|argument| argument.as_ptr().cast_mut())
        .chain([std::ptr::null_mut()])
        .collect();
    let mut pointer = pointers.as_mut_ptr();
    // SAFETY: as the arguments of `main`; libFuzzer copies the strings and does not write to them.
    let status = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut pointer, callback) };
    assert_eq!(status, 0);
}
