//! What each member is to have of one batch, encoded once for all who are to have the same.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use tidewire_protocol::Event;
use tidewire_protocol::dialect::Movement;

use crate::delivery::{Batch, Encoded, Form};

/// Different runs of a batch that are encoded as a whole.
///
/// Filters that admit much admit the same runs, and encoding one at once is quickest. Where there
/// are more, each member wants a run of its own of events that others want too; then every event is
/// encoded once and the bytes are joined for each.
const WHOLE: usize = 8;

/// Events of a batch by their place in it, and what each means to the member; in order.
pub(super) type Run = Vec<(u32, Movement)>;

/// Bytes of an event for one form and movement, made when the first member wants them.
#[derive(Default)]
pub(super) struct Singles(Vec<(Form, Movement, Encoded)>);

impl Singles {
    pub(super) fn encoded(
        &mut self,
        form: &Form,
        event: &Arc<Event>,
        movement: Movement,
    ) -> &Encoded {
        let same =
            |(held, moved, _): &(Form, Movement, Encoded)| *moved == movement && held == form;
        let known = self.0.iter().position(same);
        let place = known.unwrap_or_else(|| {
            let encoded = form.encode([(event, movement)].into_iter());
            self.0.push((form.clone(), movement, encoded));
            self.0.len() - 1
        });
        &self.0[place].2
    }
}

/// Bytes of the runs of one batch.
pub(super) struct Runs<'b> {
    batch: &'b Batch,
    known: HashMap<Run, Vec<(Form, Encoded)>>,
    whole: usize,
    /// For each event; empty until they are needed.
    singles: Vec<Singles>,
}

impl<'b> Runs<'b> {
    pub(super) fn new(batch: &'b Batch) -> Self {
        Self { batch, known: HashMap::new(), whole: 0, singles: Vec::new() }
    }

    /// The bytes of a run in this form.
    pub(super) fn encoded(&mut self, form: &Form, run: Run) -> Encoded {
        let known = self.known.get(&run).into_iter().flatten().find(|(held, _)| held == form);
        if let Some((_, encoded)) = known {
            return encoded.clone();
        }
        let encoded = self.encode(form, &run);
        self.known.entry(run).or_default().push((form.clone(), encoded.clone()));
        encoded
    }

    fn encode(&mut self, form: &Form, run: &[(u32, Movement)]) -> Encoded {
        let events = self.batch.events();
        let is_all = run.len() == events.len();
        if is_all && run.iter().all(|(_, movement)| *movement == Movement::Within) {
            // Those without a filter are sent the same.
            return self.batch.encoded(form);
        }
        if self.whole < WHOLE {
            self.whole += 1;
            return form
                .encode(run.iter().map(|(place, moved)| (&events[*place as usize], *moved)));
        }
        self.join(form, run)
    }

    fn join(&mut self, form: &Form, run: &[(u32, Movement)]) -> Encoded {
        let events = self.batch.events();
        self.singles.resize_with(events.len(), Singles::default);
        let (mut joined, mut each) = (BytesMut::new(), Vec::new());
        for (place, movement) in run {
            let place = *place as usize;
            match self.singles[place].encoded(form, &events[place], *movement) {
                Encoded::Joined(bytes) => joined.extend_from_slice(bytes),
                Encoded::Each(list) => each.extend_from_slice(list),
            }
        }
        if form.marked { Encoded::Each(each) } else { Encoded::Joined(joined.freeze()) }
    }
}
