//! The marks, read anew. Without one of them nobody knows which snapshots there are: the others are read all the same, so
//! that every damaged one is found and what they forget is not missed.

use std::collections::BTreeMap;

use super::super::marks::Record;
use super::super::{Damage, RepositoryError, decode_damage, get_or_damage, missing, seal_damage};
use super::Checker;
use crate::format::envelope::ObjectType;
use crate::format::layout;
use crate::format::mark::Mark;
use crate::id::{ObjectId, ObjectName};
use crate::limits::OBJECT_SIZE_MAX;
use crate::seal::object::unseal_object;

/// The damage, if the record does not go on from a mark that somebody knows. One that was restated may be gone.
fn not_gone_on(record: &Record, (number, digest): (u32, ObjectId)) -> Option<Damage> {
    let problem = match record.marks.get(&number) {
        None if record.newest < number => "it was there, and is not there any more: history was rolled back",
        Some(mark) if mark.digest != digest => "it is another one than was there before: history was forked",
        Some(_) | None => return None,
    };
    let object = layout::mark(number).to_string();
    Some(Damage { object, layer: "presence", problem: problem.to_owned() })
}

impl Checker {
    pub(super) async fn decisions(&mut self, known: Option<(u32, ObjectId)>) -> Result<(), RepositoryError> {
        match self.repository.record_anew().await {
            Ok(record) => {
                self.checked.objects += record.marks.len() as u64;
                self.view.record = record;
            }
            Err(RepositoryError::Damaged(_)) => self.readable_decisions().await?,
            Err(error) => return Err(error),
        }
        let record = &self.view.record;
        self.checked.mark = record.marks.last_key_value().map(|(number, mark)| (*number, mark.digest));
        if let Some(damage) = known.and_then(|known| not_gone_on(record, known)) {
            let hurts = "every snapshot: what was forgotten, confirmed or held since is not known";
            self.report(damage, vec![hurts.to_owned()]);
        }
        Ok(())
    }

    /// Reads what can be read, and reports what cannot.
    async fn readable_decisions(&mut self) -> Result<(), RepositoryError> {
        let (marks, damages) = self.marks().await?;
        self.view.record_hurt = !damages.is_empty();
        self.checked.objects += marks.len() as u64;
        let restated = marks.iter().filter(|(_, mark)| mark.restated).map(|(number, _)| *number).next_back();
        for (number, damage) in damages {
            let hurts = if restated.is_some_and(|restated| number < restated) {
                "no snapshot: a later mark says all that it said".to_owned()
            } else {
                "every snapshot: what this mark forgot, confirmed, held or condemned is not known without it. A machine that \
                 has not read it before cannot list snapshots, and nothing can be forgotten or pruned"
                    .to_owned()
            };
            self.report(damage, vec![hurts]);
        }
        let mut record = Record::default();
        marks.values().for_each(|mark| record.add(mark, None));
        self.view.record = record;
        Ok(())
    }

    /// The marks that can be read, and the damage to the others, by their numbers.
    async fn marks(&self) -> Result<(BTreeMap<u32, Mark>, BTreeMap<u32, Damage>), RepositoryError> {
        let listed = self.repository.store().list(layout::MARKS).await?;
        let numbers: BTreeMap<u32, ObjectName> =
            listed.into_iter().filter_map(|info| Some((layout::number_in(&info.name)?, info.name))).collect();
        let (mut marks, mut damages) = (BTreeMap::new(), BTreeMap::new());
        let last = numbers.keys().next_back().copied().unwrap_or(0);
        let first = numbers.keys().next().copied().unwrap_or(1);
        for number in first.. {
            match self.readable_mark(number).await {
                Ok(mark) => drop(marks.insert(number, mark)),
                Err(RepositoryError::Damaged(damage)) if damage.layer == "presence" && number > last => break,
                Err(RepositoryError::Damaged(damage)) => drop(damages.insert(number, damage)),
                Err(error) => return Err(error),
            }
        }
        // Marks below one that restates them are deleted once it is there.
        let restated = marks.values().filter(|mark| mark.restated).map(|mark| mark.number).next_back().unwrap_or(0);
        damages.retain(|number, damage| damage.layer != "presence" || *number > restated);
        if first > 1 && restated == 0 {
            damages.insert(first - 1, missing(&layout::mark(first - 1)));
        }
        Ok((marks, damages))
    }

    async fn readable_mark(&self, number: u32) -> Result<Mark, RepositoryError> {
        let name = layout::mark(number);
        let stored = get_or_damage(&**self.repository.store(), &name, OBJECT_SIZE_MAX).await?;
        let body = unseal_object(self.repository.keys(), ObjectType::Mark, &stored)
            .map_err(|error| seal_damage(&name, error))?;
        let mark = Mark::decode(&body).map_err(|error| decode_damage(&name, &error))?;
        if mark.number == number {
            return Ok(mark);
        }
        let problem = format!("it says that it is mark {}", mark.number);
        Err(Damage { object: name.to_string(), layer: "name", problem }.into())
    }
}
