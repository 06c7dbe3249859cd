//! Who may send an insert while others are under way.

use std::collections::VecDeque;

use super::*;

const TOOK: Duration = Duration::from_millis(10);

fn turns(inserts_max: usize) -> Turns {
    let mut turns = Turns::new(50, None, inserts_max);
    for (lane, orders) in Lane::ALL.into_iter().zip([0..20, 20..40, 40..60]) {
        for order in orders {
            turns.push(lane, order);
        }
    }
    turns
}

/// Begins as many as there may be, of these lanes one after the other.
fn begin_all(turns: &mut Turns, lanes: &[Lane]) -> Vec<Turn> {
    let mut begun = Vec::new();
    for lane in lanes {
        while turns.next(*lane).is_some() {
            begun.push(turns.begin(*lane));
        }
    }
    begun
}

fn lanes_of(turns: &[Turn]) -> Vec<Lane> {
    turns.iter().map(Turn::lane).collect()
}

#[test]
fn patient_orders_use_what_quick_ones_leave_idle() {
    let mut turns = turns(1_000);
    let begun = begin_all(&mut turns, &[Lane::Patient]);
    assert_eq!(lanes_of(&begun), [Lane::Patient; 2]);
    for turn in begun {
        turns.end(turn, 5, &Ending::Stored(TOOK));
    }
    assert_eq!(turns.next(Lane::Quick), Some(0));
    turns.begin(Lane::Quick);
    let begun = begin_all(&mut turns, &[Lane::Patient]);
    assert_eq!(lanes_of(&begun), [Lane::Patient], "one is a quick one's");
}

#[test]
fn quick_orders_never_wait_for_patient_ones_nor_for_dead_letters() {
    let mut turns = turns(1_000);
    begin_all(&mut turns, &[Lane::Recovery, Lane::Patient]);
    let begun = begin_all(&mut turns, &[Lane::Quick]);
    assert_eq!(lanes_of(&begun), [Lane::Quick; 2]);
}

#[test]
fn patient_orders_go_on_one_at_a_time_while_quick_ones_use_all_there_is() {
    let mut turns = turns(1_000);
    begin_all(&mut turns, &[Lane::Quick]);
    for _ in 0..3 {
        let mut begun = begin_all(&mut turns, &[Lane::Patient]);
        assert_eq!(begun.len(), 1);
        turns.end(begun.remove(0), 5, &Ending::Failed);
    }
}

#[test]
fn of_dead_letters_one_insert_is_under_way_and_its_time_out_makes_no_other_small_or_few() {
    let mut turns = turns(1_000);
    let mut begun = begin_all(&mut turns, &[Lane::Recovery]);
    assert_eq!(begun.len(), 1);
    turns.end(begun.remove(0), 5, &Ending::TimedOut);
    assert_eq!((turns.rows(Lane::Recovery), turns.rows(Lane::Patient)), (2, 5));
    assert_eq!(begin_all(&mut turns, &[Lane::Quick]).len(), 2);
}

#[test]
fn more_are_under_way_where_that_stores_more_and_fewer_after_a_time_out() {
    let mut turns = turns(4);
    let mut under_way = VecDeque::new();
    for order in 0..40 {
        turns.push(Lane::Quick, order);
        under_way.extend(begin_all(&mut turns, &[Lane::Quick]));
        let turn = under_way.pop_front().expect("one is under way");
        turns.end(turn, 50, &Ending::Stored(TOOK));
    }
    assert_eq!(turns.concurrency.limit(), 4);
    let turn = turns.begin(Lane::Quick);
    turns.end(turn, 50, &Ending::TimedOut);
    assert_eq!(turns.concurrency.limit(), 2);
}
