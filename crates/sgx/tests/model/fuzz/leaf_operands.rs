//! Any leaf with any operands: addresses, structures in memory and page tables.

use crate::choices::Choices;
use crate::sequences::tally::Tally;
use crate::sequences::world::World;

/// Lets the bytes choose processors, leaves and operands, and checks the invariants after each
/// leaf.
pub(crate) fn leaf_operands(data: &[u8]) {
    let mut choices = Choices::Bytes(data);
    let mut world = World::new(1 + choices.below(4), true);
    let mut tally = Tally::default();
    while !choices.ended() {
        world.step(&mut choices, &mut tally);
    }
    world.end();
}
