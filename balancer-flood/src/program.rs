//! The generator's object and what is in it.

use aya::maps::MapData;
use aya::programs::Xdp;
use aya::{Ebpf, Pod};

use crate::Error;
use crate::plan::{Plan, Progress, Tally};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BALANCER_FLOOD_OBJECT"));

// SAFETY: integers only, and no padding: the size is asserted beside it.
unsafe impl Pod for Plan {}
// SAFETY: two integers of the same size.
unsafe impl Pod for Progress {}
// SAFETY: two integers of the same size.
unsafe impl Pod for Tally {}

/// The object, with one program loaded.
pub fn load(name: &'static str) -> Result<Ebpf, Error> {
    let mut ebpf = Ebpf::load(OBJECT)?;
    program(&mut ebpf, name)?.load()?;
    Ok(ebpf)
}

/// A program of the object.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    Ok(ebpf
        .program_mut(name)
        .ok_or(Error::Missing(name))?
        .try_into()?)
}

/// A map of the object, which is taken out of it.
pub fn map<M, E>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<aya::maps::Map, Error = E>,
    Error: From<E>,
{
    Ok(ebpf
        .take_map(name)
        .ok_or(Error::Missing(name))?
        .try_into()?)
}

/// A map of one value.
pub type One<T> = aya::maps::Array<MapData, T>;
