//! 128 bits as elements.
//!
//! Every packed operation is a function of [`Lane`]s: the 128-bit lanes that SSE operates on and
//! that AVX repeats, of which an MMX register is the low half.
#![allow(
    clippy::useless_transmute,
    reason = "one macro serves all widths, and a lane of quadwords is the array itself"
)]

pub(crate) use crate::state::vector::{Lane, Wide};

/// What a [`Lane`] is divided into.
pub(crate) trait Element: Copy {
    /// All elements of a lane, the lowest first.
    type Array: AsRef<[Self]> + AsMut<[Self]> + Copy;
    /// Takes a lane apart.
    fn split(lane: Lane) -> Self::Array;
    /// Puts a lane together.
    fn join(elements: Self::Array) -> Lane;
}

macro_rules! element {
    ($($t:ty, $n:literal);*) => {$(
        impl Element for $t {
            type Array = [$t; $n];
            #[inline(always)]
            fn split(lane: Lane) -> Self::Array {
                #[cfg(target_endian = "little")]
                return zerocopy::transmute!(lane);
                #[cfg(target_endian = "big")]
                return std::array::from_fn(|i| {
                    let bit = i * size_of::<$t>() * 8;
                    (lane[bit / 64] >> (bit % 64)) as $t
                });
            }
            #[inline(always)]
            fn join(elements: Self::Array) -> Lane {
                #[cfg(target_endian = "little")]
                return zerocopy::transmute!(elements);
                #[cfg(target_endian = "big")]
                {
                    let mut lane = [0; 2];
                    for (i, element) in elements.iter().enumerate() {
                        let size = size_of::<$t>() * 8;
                        let bits = *element as u64 & (u64::MAX >> (64 - size));
                        lane[i * size / 64] |= bits << (i * size % 64);
                    }
                    lane
                }
            }
        }
    )*};
}
element!(u8, 16; i8, 16; u16, 8; i16, 8; u32, 4; i32, 4; u64, 2; i64, 2);

/// Applies `f` to each element.
#[inline(always)]
pub(crate) fn map<T: Element>(a: Lane, f: impl Fn(T) -> T) -> Lane {
    let mut a = T::split(a);
    for x in a.as_mut() {
        *x = f(*x);
    }
    T::join(a)
}

/// Applies `f` to each pair of elements at the same place.
#[inline(always)]
pub(crate) fn zip<T: Element>(a: Lane, b: Lane, f: impl Fn(T, T) -> T) -> Lane {
    let mut a = T::split(a);
    for (x, y) in a.as_mut().iter_mut().zip(T::split(b).as_ref()) {
        *x = f(*x, *y);
    }
    T::join(a)
}

/// Applies `f` to each pair of elements, with its exception state.
#[inline(always)]
pub(crate) fn zip_with<T: Element, E>(
    state: &mut E,
    a: Lane,
    b: Lane,
    f: impl Fn(&mut E, T, T) -> T,
) -> Lane {
    let mut a = T::split(a);
    for (x, y) in a.as_mut().iter_mut().zip(T::split(b).as_ref()) {
        *x = f(state, *x, *y);
    }
    T::join(a)
}

/// Applies `f` to each element, with its exception state.
#[inline(always)]
pub(crate) fn map_with<T: Element, E>(state: &mut E, a: Lane, f: impl Fn(&mut E, T) -> T) -> Lane {
    let mut a = T::split(a);
    for x in a.as_mut() {
        *x = f(state, *x);
    }
    T::join(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_a_lane_is_its_lowest() {
        let lane = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(u8::split(lane), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(u8::join(u8::split(lane)), lane);
        assert_eq!(u16::split(lane)[1], 0x0302);
        assert_eq!(u32::split(lane)[3], 0x0f0e_0d0c);
    }
}
