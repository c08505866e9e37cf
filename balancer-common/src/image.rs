//! An image: one generation of services, backends and schedules, as the packet path reads it.
//!
//! The daemon compiles the config into an array of 64-byte cells and swaps the whole array in by one pointer, so
//! a packet sees one generation, never a mixture. Nothing in an image changes once it is in use.
//!
//! ```text
//! cell 0        header: where the parts begin
//! listeners     a hash table from address, port, protocol, family and interface to a service
//! services      one cell each
//! backends      two in a cell
//! schedules     nth: sixteen slots in a cell; random: eight columns of an alias table in a cell
//! ```
//!
//! Numbers are in the machine's order, addresses as in the packet. Each record is written and read by one pair of
//! functions here.

use crate::family::Family;
use crate::tuple::Tuple;

/// 64 bytes of an image.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell(pub [u64; 8]);

/// How many cells a listener is searched in, from its home on.
pub const PROBES: u32 = 4;

/// Access to the cells of one generation.
pub trait Image {
    /// The cell at `index`; `None` behind the end.
    fn cell(&self, index: u32) -> Option<&Cell>;
}

impl Image for &[Cell] {
    fn cell(&self, index: u32) -> Option<&Cell> {
        self.get(index as usize)
    }
}

#[inline(always)]
const fn join(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[inline(always)]
const fn low(word: u64) -> u32 {
    word as u32
}

#[inline(always)]
const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Cell 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The number of this generation.
    pub generation: u32,
    /// The first cell of listeners.
    pub listeners: u32,
    /// How many cells they have, less one; their number is a power of two. [`PROBES`] - 1 more follow the last.
    pub listener_mask: u32,
    /// The first cell of services.
    pub services: u32,
    /// How many services there are.
    pub service_count: u32,
}

impl Header {
    /// As a cell.
    #[must_use]
    pub const fn write(&self) -> Cell {
        Cell([
            join(self.generation, 0),
            join(self.listeners, self.listener_mask),
            join(self.services, self.service_count),
            0,
            0,
            0,
            0,
            0,
        ])
    }

    /// From its cell.
    #[inline(always)]
    #[must_use]
    pub const fn read(cell: &Cell) -> Self {
        let words = &cell.0;
        Self {
            generation: low(words[0]),
            listeners: low(words[1]),
            listener_mask: high(words[1]),
            services: low(words[2]),
            service_count: high(words[2]),
        }
    }
}

/// What a listener listens for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// The address, IPv4 as IPv4-mapped; zero: any.
    pub address: [u64; 2],
    /// Port, protocol, family and interface.
    pub rest: u64,
}

impl ListenerKey {
    /// Puts a key together. `port` in host order; `family` is 4 or 6; `interface` an index, or 0 for any.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        address: [u64; 2],
        port: u16,
        protocol: u8,
        family: u8,
        interface: u32,
    ) -> Self {
        Self {
            address,
            rest: join(
                port as u32 | (protocol as u32) << 16 | (family as u32) << 24,
                interface,
            ),
        }
    }

    /// A hash to spread listeners by. What is hashed comes from the config; packets can only miss, within a
    /// number of probes that the config fixed, so it needs no secret.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u32 {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut hash = self.address[0].wrapping_mul(FACTOR);
        hash = (hash ^ hash >> 29 ^ self.address[1]).wrapping_mul(FACTOR);
        hash = (hash ^ hash >> 29 ^ self.rest).wrapping_mul(FACTOR);
        (hash >> 32) as u32
    }

    /// Enters it with its service (an index in this image) into half `half` of a cell.
    pub const fn write(&self, service: u32, cell: &mut Cell, half: usize) {
        let base = half * 4;
        cell.0[base] = self.address[0];
        cell.0[base + 1] = self.address[1];
        cell.0[base + 2] = self.rest;
        cell.0[base + 3] = join(service, 1);
    }

    /// Whether half `half` of a cell is free.
    #[must_use]
    pub const fn is_free(cell: &Cell, half: usize) -> bool {
        cell.0[half * 4 + 3] == 0
    }

    #[inline(always)]
    const fn matches(&self, cell: &Cell, base: usize) -> Option<u32> {
        let words = &cell.0;
        if words[base + 2] == self.rest
            && words[base] == self.address[0]
            && words[base + 1] == self.address[1]
            && high(words[base + 3]) == 1
        {
            Some(low(words[base + 3]))
        } else {
            None
        }
    }
}

/// How a service chooses among its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// One after the other.
    Nth,
    /// By chance.
    Random,
}

/// What a service does with source addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceNat {
    /// Leaves them.
    None,
    /// The box's own address towards the backend.
    Masquerade,
    /// The one in the service's record.
    Address,
}

/// A service's cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its id, which outlives the image.
    pub id: u32,
    /// How it chooses.
    pub scheduler: Scheduler,
    /// How it rewrites the source.
    pub source_nat: SourceNat,
    /// The first cell of its backends.
    pub backends: u32,
    /// How many it has.
    pub backend_count: u32,
    /// The first cell of its schedule.
    pub schedule: u32,
    /// How many slots or columns that has; 0: no backend takes connections.
    pub schedule_length: u32,
    /// The first source port for source NAT, in host order.
    pub first_port: u16,
    /// The last one.
    pub last_port: u16,
    /// The source address for [`SourceNat::Address`].
    pub source: [u64; 2],
}

impl Service {
    /// As a cell.
    #[must_use]
    pub const fn write(&self) -> Cell {
        let scheduler = match self.scheduler {
            Scheduler::Nth => 0,
            Scheduler::Random => 1,
        };
        let source_nat = match self.source_nat {
            SourceNat::None => 0,
            SourceNat::Masquerade => 1,
            SourceNat::Address => 2,
        };
        Cell([
            join(self.id, scheduler | source_nat << 8),
            join(self.backends, self.backend_count),
            join(self.schedule, self.schedule_length),
            join(self.first_port as u32, self.last_port as u32),
            self.source[0],
            self.source[1],
            0,
            0,
        ])
    }

    /// From its cell.
    #[inline(always)]
    #[must_use]
    pub const fn read(cell: &Cell) -> Self {
        let words = &cell.0;
        let modes = high(words[0]);
        Self {
            id: low(words[0]),
            scheduler: if modes as u8 == 0 {
                Scheduler::Nth
            } else {
                Scheduler::Random
            },
            source_nat: match modes >> 8 {
                0 => SourceNat::None,
                1 => SourceNat::Masquerade,
                _ => SourceNat::Address,
            },
            backends: low(words[1]),
            backend_count: high(words[1]),
            schedule: low(words[2]),
            schedule_length: high(words[2]),
            first_port: low(words[3]) as u16,
            last_port: high(words[3]) as u16,
            source: [words[4], words[5]],
        }
    }
}

/// A backend: half a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its id, which outlives the image.
    pub id: u32,
    /// Its port in host order; 0: the port that the packet came to.
    pub port: u16,
    /// Its address, IPv4 as IPv4-mapped.
    pub address: [u64; 2],
}

impl Backend {
    /// Into half `half` of a cell.
    pub const fn write(&self, cell: &mut Cell, half: usize) {
        let base = half * 4;
        cell.0[base] = self.address[0];
        cell.0[base + 1] = self.address[1];
        cell.0[base + 2] = join(self.id, self.port as u32);
    }

    #[inline(always)]
    const fn read(cell: &Cell, base: usize) -> Self {
        let words = &cell.0;
        Self {
            id: low(words[base + 2]),
            port: high(words[base + 2]) as u16,
            address: [words[base], words[base + 1]],
        }
    }
}

/// Slots of an nth schedule in a cell.
pub const SLOTS: u32 = 16;

/// Writes slot `slot` (below [`SLOTS`]) of an nth schedule: the index of a backend within its service.
pub const fn write_slot(cell: &mut Cell, slot: u32, backend: u32) {
    let word = &mut cell.0[slot as usize >> 1];
    *word = if slot & 1 == 0 {
        join(backend, high(*word))
    } else {
        join(low(*word), backend)
    };
}

/// Columns of a random schedule in a cell.
pub const COLUMNS: u32 = 8;

/// A column of an alias table (Walker 1977, built by Vose's method): drawing a column evenly and a number evenly
/// gives each backend exactly its share, to one part in 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Drawn numbers below it choose `backend`, the others `alias`.
    pub threshold: u32,
    /// The backend of the column, an index within its service.
    pub backend: u16,
    /// The other one.
    pub alias: u16,
}

impl Column {
    /// Writes it as column `column` (below [`COLUMNS`]).
    pub const fn write(&self, cell: &mut Cell, column: u32) {
        cell.0[column as usize] = join(
            self.threshold,
            self.backend as u32 | (self.alias as u32) << 16,
        );
    }

    #[inline(always)]
    const fn read(word: u64) -> Self {
        Self {
            threshold: low(word),
            backend: high(word) as u16,
            alias: (high(word) >> 16) as u16,
        }
    }
}

/// Word `index & 7` of a cell. A match, since the verifier takes no variable offset into a value on the stack.
#[inline(always)]
fn word(cell: &Cell, index: u32) -> u64 {
    let words = &cell.0;
    match index & 7 {
        0 => words[0],
        1 => words[1],
        2 => words[2],
        3 => words[3],
        4 => words[4],
        5 => words[5],
        6 => words[6],
        _ => words[7],
    }
}

/// The service that `tuple` belongs to, when it came in by `interface`: an index in this image. `kinds` are the kinds of
/// listeners that its port may have: see [`crate::ports`].
///
/// A listener with the exact address goes before one with any address, and of two such the one that names the
/// interface goes first.
#[inline(always)]
pub fn find<F: Family, I: Image>(
    image: &I,
    tuple: &Tuple<F>,
    interface: u32,
    kinds: u32,
) -> Option<u32> {
    let header = Header::read(image.cell(0)?);
    let address = F::mapped(F::destination(tuple.addresses));
    let (port, protocol) = (tuple.ports.destination(), tuple.ports.protocol());
    for kind in 0..4 {
        if kinds & (1 << kind) == 0 {
            continue;
        }
        let address = if kind & 2 == 0 { address } else { [0, 0] };
        let interface = if kind & 1 == 0 { interface } else { 0 };
        let key = ListenerKey::new(address, port, protocol, F::VERSION, interface);
        let home = header.listeners + (key.hash() & header.listener_mask);
        for probe in 0..PROBES {
            let cell = image.cell(home + probe)?;
            if let Some(service) = key.matches(cell, 0) {
                return Some(service);
            }
            if let Some(service) = key.matches(cell, 4) {
                return Some(service);
            }
        }
    }
    None
}

/// The record of a service that [`find`] gave.
#[inline(always)]
pub fn service<I: Image>(image: &I, index: u32) -> Option<Service> {
    let header = Header::read(image.cell(0)?);
    Some(Service::read(image.cell(header.services + index)?))
}

/// The backend that a service's schedule gives for `draw`: the ticket's number for nth, two even random numbers
/// for random.
#[inline(always)]
pub fn choose<I: Image>(
    image: &I,
    service: &Service,
    ticket: impl FnOnce() -> u64,
    random: impl Fn() -> u32,
) -> Option<Backend> {
    let length = service.schedule_length;
    if length == 0 {
        return None;
    }
    let index = match service.scheduler {
        Scheduler::Nth => {
            let slot = (ticket() % u64::from(length)) as u32;
            let word = word(image.cell(service.schedule + slot / SLOTS)?, slot >> 1);
            if slot & 1 == 0 { low(word) } else { high(word) }
        }
        Scheduler::Random => {
            let column = high(u64::from(random()) * u64::from(length));
            let column = Column::read(word(
                image.cell(service.schedule + column / COLUMNS)?,
                column,
            ));
            u32::from(if random() < column.threshold {
                column.backend
            } else {
                column.alias
            })
        }
    };
    let cell = image.cell(service.backends + index / 2)?;
    Some(if index & 1 == 0 {
        Backend::read(cell, 0)
    } else {
        Backend::read(cell, 4)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_cells() {
        let header = Header {
            generation: 1,
            listeners: 3,
            listener_mask: 7,
            services: 5,
            service_count: 6,
        };
        assert_eq!(Header::read(&header.write()), header);
        for scheduler in [Scheduler::Nth, Scheduler::Random] {
            for source_nat in [SourceNat::None, SourceNat::Masquerade, SourceNat::Address] {
                let service = Service {
                    id: 9,
                    scheduler,
                    source_nat,
                    backends: 1,
                    backend_count: 2,
                    schedule: 3,
                    schedule_length: 4,
                    first_port: 1024,
                    last_port: 65535,
                    source: [1, u64::MAX],
                };
                assert_eq!(Service::read(&service.write()), service);
            }
        }
        let mut cell = Cell::default();
        let backends = [
            Backend {
                id: 1,
                port: 2,
                address: [3, 4],
            },
            Backend {
                id: 5,
                port: 6,
                address: [7, 8],
            },
        ];
        backends[0].write(&mut cell, 0);
        backends[1].write(&mut cell, 1);
        assert_eq!([Backend::read(&cell, 0), Backend::read(&cell, 4)], backends);
    }

    #[test]
    fn slots_lie_where_they_are_read() {
        let mut cell = Cell::default();
        for slot in 0..SLOTS {
            write_slot(&mut cell, slot, 100 + slot);
        }
        for slot in 0..SLOTS {
            let word = word(&cell, slot >> 1);
            assert_eq!(
                if slot & 1 == 0 { low(word) } else { high(word) },
                100 + slot
            );
        }
    }
}
