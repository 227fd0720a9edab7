//! Micro-benchmarks that are measured in two ways: by the clock, with criterion, and by the number
//! of instructions, with callgrind.
//!
//! A crate lists what is worth measuring in `benches/costs` as [`Case`]s and hands them to [`run`].
//! Time says what a change is worth on this machine now; the number of instructions is the same
//! tomorrow, so it has a budget that `make check-perf` holds every change against. The program of
//! this crate counts and compares; see `docs/performance.md`.

mod clock;
mod count;

/// Rounds that are counted, unless a case says otherwise: enough that what happens only now and
/// then, such as a buffer that grows, is spread evenly.
const ROUNDS: u64 = 400;

/// Carries out so many rounds of a case.
type Rounds = Box<dyn FnMut(u64)>;

/// Something whose cost is worth knowing.
///
/// What a case does must depend on nothing but itself: fixed inputs, no clock that goes on, no
/// thread beside it. Where a map's seed is random, a case goes through enough keys that their
/// luck evens out.
pub struct Case {
    name: String,
    operations: u64,
    rounds: u64,
    prepare: Box<dyn Fn() -> Rounds>,
}

impl Case {
    /// A case whose `prepare` gives what does one round; the result is not optimised away.
    ///
    /// Its name is of the form `what/how/of-which-size`.
    pub fn new<T, F: FnMut() -> T + 'static>(
        name: impl Into<String>,
        prepare: impl Fn() -> F + 'static,
    ) -> Self {
        Self::looping(name, move || {
            let mut once = prepare();
            move |rounds| {
                for _ in 0..rounds {
                    std::hint::black_box(once());
                }
            }
        })
    }

    /// A case whose `prepare` gives what does any number of rounds, for rounds that have something
    /// in common which is not to be counted in each.
    pub fn looping<F: FnMut(u64) + 'static>(
        name: impl Into<String>,
        prepare: impl Fn() -> F + 'static,
    ) -> Self {
        let prepare = Box::new(move || Box::new(prepare()) as Rounds);
        Self { name: name.into(), operations: 1, rounds: ROUNDS, prepare }
    }

    /// How many operations are done in a round; what is told is the cost of one. 1 by default.
    #[must_use]
    pub fn operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self
    }

    /// How many rounds are counted, after a quarter of as many that are not. 400 by default.
    #[must_use]
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds;
        self
    }
}

/// The `main` of a benchmark: measures by the clock, as `cargo bench` wants it, or does what the
/// program that counts instructions asks for.
pub fn run(cases: &[Case]) {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("--list-cases"), None) => count::list(cases),
        (Some("--count-case"), Some(name)) => count::one(cases, &name),
        _ => clock::all(cases),
    }
}
