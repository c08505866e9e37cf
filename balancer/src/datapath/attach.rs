//! Attaching the program: one link for each interface, pinned, replaced atomically.

use std::fs;
use std::path::Path;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode as AyaMode};

use super::netlink::Link;
use super::pins::Pins;
use super::socket::LONGEST;
use crate::config::XdpMode;

/// Why an interface was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's program is there.
    #[error(
        "{interface} has an XDP program of someone else (id {program}): detach it first, `bpftool prog show id {program}` tells what it is"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// The program's id.
        program: u32,
    },
    /// The kernel or the driver said no.
    #[error("the program cannot be attached to {interface}: {reason}")]
    Refused {
        /// The interface.
        interface: String,
        /// What it said, and what may help.
        reason: String,
    },
}

/// Attaches `program` to an interface, or replaces it on the link that an earlier daemon pinned.
///
/// # Errors
/// [`AttachError`].
pub fn attach(
    program: &mut Xdp,
    pins: &Pins,
    link: &Link,
    mode: XdpMode,
) -> Result<(), AttachError> {
    let interface = &link.name;
    check(pins, link, mode)?;
    let pin = pins.link(interface);
    let refused = |reason: String| AttachError::Refused {
        interface: interface.clone(),
        reason,
    };
    match link.xdp {
        Some(_) => return replace(program, &pin).map_err(|error| refused(error.to_string())),
        // Of an interface that was deleted and made anew the old link is dead.
        None if pin.exists() => {
            fs::remove_file(&pin).map_err(|error| refused(error.to_string()))?;
        }
        None => {}
    }
    let modes: &[AyaMode] = match mode {
        XdpMode::Native => &[AyaMode::Driver],
        XdpMode::Generic => &[AyaMode::Skb],
        XdpMode::Auto => &[AyaMode::Driver, AyaMode::Skb],
    };
    let mut reason = String::new();
    for (attempt, &mode) in modes.iter().enumerate() {
        match attach_once(program, &pin, link, mode) {
            Ok(()) => {
                if attempt > 0 {
                    tracing::warn!(
                        interface,
                        reason,
                        "no native XDP: attached in generic mode, which is slower"
                    );
                }
                return Ok(());
            }
            Err(error) => reason = error,
        }
    }
    Err(refused(reason))
}

/// Sees to it that no program is on an interface but one that an earlier daemon attached, in a mode that is wanted.
///
/// # Errors
/// [`AttachError`].
pub fn check(pins: &Pins, link: &Link, mode: XdpMode) -> Result<(), AttachError> {
    let Some((program, is_native)) = link.xdp else {
        return Ok(());
    };
    if pinned_program(&pins.link(&link.name)) != Some(program) {
        return Err(AttachError::Foreign {
            interface: link.name.clone(),
            program,
        });
    }
    let other = match mode {
        XdpMode::Native if !is_native => "generic",
        XdpMode::Generic if is_native => "native",
        _ => return Ok(()),
    };
    Err(AttachError::Refused {
        interface: link.name.clone(),
        reason: format!(
            "an earlier daemon attached it in {other} mode, and another would interrupt it: run `balancerctl detach` first"
        ),
    })
}

/// Sees to it that engine `userspace` can take all packets of an interface.
///
/// # Errors
/// [`AttachError::Refused`].
pub fn check_mtu(link: &Link) -> Result<(), AttachError> {
    if link.mtu <= LONGEST {
        return Ok(());
    }
    Err(AttachError::Refused {
        interface: link.name.clone(),
        reason: format!(
            "engine `userspace` takes packets of up to {LONGEST} bytes: make the MTU of {} smaller, or use the other engine",
            link.mtu
        ),
    })
}

/// The id of the program on a pinned link.
fn pinned_program(pin: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    Some(link.info().ok()?.program_id())
}

/// From about this MTU on drivers may natively take only programs of many buffers (`xdp.frags`): a packet has to fit into a page.
const PAGE: u32 = 3400;

fn attach_once(program: &mut Xdp, pin: &Path, link: &Link, mode: AyaMode) -> Result<(), String> {
    let text = |error: ProgramError| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text = error.to_string();
            source = error.source();
        }
        text
    };
    let id = program
        .attach_to_if_index(link.index, mode)
        .map_err(|error| match mode {
            AyaMode::Driver if link.mtu > PAGE => format!(
                "{}; natively a packet may have to fit into a page, some 3,500 bytes of it: make the MTU of {} smaller, or set `xdp_mode = \"generic\"`",
                text(error),
                link.mtu,
            ),
            _ => text(error),
        })?;
    let link = program.take_link(id).map_err(text)?;
    let link: FdLink = link
        .try_into()
        .map_err(|error: LinkError| error.to_string())?;
    link.pin(pin).map_err(|error| error.to_string())?;
    Ok(())
}

fn replace(program: &mut Xdp, pin: &Path) -> Result<(), LinkFailed> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let link = XdpLink::try_from(link)?;
    let id = program.attach_to_link(link)?;
    // The pin holds the link; without taking it here the program's end would detach it.
    drop(program.take_link(id)?);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum LinkFailed {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Program(#[from] ProgramError),
}
