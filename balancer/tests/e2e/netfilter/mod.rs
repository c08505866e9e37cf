//! Beside the kernel's netfilter: the same frames through balancerd and through DNAT and masquerade, and why what comes out differs where
//! it does.

mod difference;
mod sequence;
mod text;
mod twin;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::thread;

use balancer_lab::Need;
use difference::{Difference, REASONS, Reason};
use sequence::{SEQUENCES, Sequence, Talk};
use twin::{Heard, Twin};
use world::{PORTS, WORLDS, World};

/// A sequence and a world, by their numbers.
type Scene = (usize, usize);

/// What each step is called, and what came out.
type Story = BTreeMap<Scene, Vec<(&'static str, Heard)>>;

/// The port of the first client.
const FIRST: u16 = 5000;

/// Plays all sequences in their worlds.
fn play(twin: &mut Twin) -> Story {
    let mut story = Story::new();
    for (index, number) in scenes() {
        let world = WORLDS[number];
        let scene = number * SEQUENCES.len() + index;
        let first = FIRST + scene as u16 * PORTS;
        twin.forget();
        let steps = (SEQUENCES[index].steps)(&Talk { world, first });
        let heard = steps
            .into_iter()
            .map(|(what, frames)| (what, twin.play(world, first, &frames)));
        story.insert((index, number), heard.collect());
    }
    story
}

/// All sequences in all of their worlds.
fn scenes() -> impl Iterator<Item = Scene> {
    (0..WORLDS.len())
        .flat_map(|world| (0..SEQUENCES.len()).map(move |sequence| (sequence, world)))
        .filter(|&(sequence, world)| (SEQUENCES[sequence].of)(WORLDS[world]))
}

/// The texts of what both have sent; where these are the same, with what differs.
fn texts(ours: &Heard, theirs: &Heard) -> [Vec<String>; 2] {
    let mut texts = [ours, theirs].map(|heard| {
        let texts = heard.iter().map(|(text, _)| text.clone());
        texts.collect::<Vec<_>>()
    });
    if texts[0] == texts[1] {
        for (index, ((_, ours), (_, theirs))) in ours.iter().zip(theirs).enumerate() {
            let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            for (texts, bytes) in texts.iter_mut().zip([ours, theirs]) {
                let next = &bytes[same..bytes.len().min(same + 8)];
                write!(texts[index], ", from byte {same} on {next:02x?}").unwrap();
            }
        }
    }
    texts
}

#[test]
fn differences_from_netfilter_are_explained() {
    let Some(balanced) = Twin::balanced("balanced") else {
        return;
    };
    let filtered = match Twin::filtered("netfilter").unwrap() {
        Ok(twin) => twin,
        Err(error) => {
            Need::Lab.leave_out("netfilter", &error);
            return;
        }
    };
    let mut twins = [balanced, filtered];
    let stories = thread::scope(|scope| {
        twins
            .each_mut()
            .map(|twin| scope.spawn(|| play(twin)))
            .map(|playing| playing.join().unwrap())
    });
    let outcome = Outcome::of(&stories);
    println!(
        "{} frames, {} differences",
        outcome.frames, outcome.differences
    );
    // First: what was left undone is why something is missing.
    twins[0].check_slow_path();
    assert!(outcome.report.is_empty(), "{}", outcome.report);
    // What comes through is compared, not silence.
    for (index, sequence) in SEQUENCES.iter().enumerate() {
        let of = |story: &Story| {
            let mut heard = story.iter().filter(|((it, _), _)| *it == index);
            heard.any(|(_, steps)| steps.iter().any(|(_, frames)| !frames.is_empty()))
        };
        assert!(
            stories.iter().any(of),
            "nothing comes of {:?}",
            sequence.name
        );
    }
}

/// Steps are told by their names, and each difference is one of some.
#[test]
fn differences_from_netfilter_are_of_steps() {
    let mut steps = BTreeSet::new();
    for (index, number) in scenes() {
        let (sequence, world) = (SEQUENCES[index], WORLDS[number]);
        for (what, _) in (sequence.steps)(&Talk {
            world,
            first: FIRST,
        }) {
            let is_new = steps.insert((sequence.name, what, number));
            assert!(is_new, "{:?} has two {what:?}", sequence.name);
        }
    }
    for (_, difference) in all() {
        for &what in difference.steps {
            let in_world = |number: usize| {
                let is_there = steps.contains(&(difference.sequence, what, number));
                is_there && (difference.worlds)(WORLDS[number])
            };
            assert!(
                (0..WORLDS.len()).any(in_world),
                "there is no {:?}, {what:?}",
                difference.sequence
            );
        }
    }
}

/// What the stories come to.
#[derive(Default)]
struct Outcome {
    /// What is not as it should be.
    report: String,
    /// How many frames balancerd has sent.
    frames: usize,
    /// How many steps differ for a reason.
    differences: usize,
}

impl Outcome {
    fn of([ours, theirs]: &[Story; 2]) -> Self {
        let mut outcome = Self::default();
        let mut seen = BTreeSet::new();
        let mut unexplained: BTreeMap<_, Vec<World>> = BTreeMap::new();
        for (scene, ours) in ours {
            let (sequence, world) = (&SEQUENCES[scene.0], WORLDS[scene.1]);
            for (step, ((what, ours), (_, theirs))) in ours.iter().zip(&theirs[scene]).enumerate() {
                outcome.frames += ours.len();
                if ours == theirs {
                    continue;
                }
                let [ours, theirs] = texts(ours, theirs);
                let is_it = |(_, difference): (_, &Difference)| {
                    difference.applies(sequence.name, what, world)
                        && difference.balancerd == ours
                        && difference.netfilter == theirs
                };
                if let Some(entry) = all().position(is_it) {
                    outcome.differences += 1;
                    seen.insert((entry, *what, *scene));
                } else {
                    let key = (scene.0, step, *what, ours, theirs);
                    unexplained.entry(key).or_default().push(world);
                }
            }
        }
        for ((index, _, what, ours, theirs), worlds) in unexplained {
            let name = SEQUENCES[index].name;
            let lines = [("balancerd", ours), ("netfilter", theirs)];
            writeln!(
                outcome.report,
                "unexplained: {name:?}, {what:?}, {worlds:?}"
            )
            .unwrap();
            for (who, lines) in lines {
                writeln!(outcome.report, "  {who} {lines:#?}").unwrap();
            }
        }
        for (entry, (because, difference)) in all().enumerate() {
            for &what in difference.steps {
                for (number, world) in WORLDS.into_iter().enumerate() {
                    let named = |sequence: &&Sequence| {
                        sequence.name == difference.sequence && (sequence.of)(world)
                    };
                    let Some(index) = SEQUENCES.iter().position(named) else {
                        continue;
                    };
                    if !difference.applies(SEQUENCES[index].name, what, world) {
                        continue;
                    }
                    if !seen.contains(&(entry, what, (index, number))) {
                        writeln!(
                            outcome.report,
                            "not any more: {:?}, {what:?}, {world:?}: {because}",
                            difference.sequence
                        )
                        .unwrap();
                    }
                }
            }
        }
        outcome
    }
}

/// All differences, with their reasons.
fn all() -> impl Iterator<Item = (&'static str, &'static Difference)> {
    let of = |reason: &'static Reason| {
        let differences = reason.differences.iter();
        differences.map(|difference| (reason.because, difference))
    };
    REASONS.iter().flat_map(of)
}
