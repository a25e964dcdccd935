//! As much of Protocol Buffers' encoding as the messages need: varints and bytes, in messages of one level.

/// Bits of a varint's byte that are the number's.
const PAYLOAD: u8 = 0x7f;
/// The number that is marked by a byte's highest bit goes on.
const MORE: u8 = 0x80;

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value<'a> {
    /// An integer or a truth value.
    Number(u64),
    /// Bytes, or a message.
    Bytes(&'a [u8]),
    /// Of a fixed length, which no field here has.
    Fixed,
}

/// Not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// The fields of a message, in their order.
///
/// # Errors
/// [`Malformed`] if a field does not end within the message, or is a group.
pub(super) fn fields(mut message: &[u8]) -> Result<Vec<(u64, Value<'_>)>, Malformed> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)?),
            1 => take(&mut message, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Malformed)?;
                Value::Bytes(take(&mut message, length)?)
            }
            5 => take(&mut message, 4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed),
        };
        fields.push((tag >> 3, value));
    }
    Ok(fields)
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    message.split_off(..length).ok_or(Malformed)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let &byte = message.split_off_first().ok_or(Malformed)?;
        let bits = u64::from(byte & PAYLOAD);
        let placed = bits << shift;
        if placed >> shift != bits {
            return Err(Malformed);
        }
        number |= placed;
        if byte & MORE == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

/// Adds a field of a number.
pub(super) fn put_number(message: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(message, field << 3);
    put_varint(message, number);
}

/// Adds a field of bytes, or of a message.
pub(super) fn put_bytes(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(message, (field << 3) | 2);
    put_varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    loop {
        let byte = number.to_le_bytes()[0] & PAYLOAD;
        number >>= 7;
        if number == 0 {
            message.push(byte);
            return;
        }
        message.push(byte | MORE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_back() {
        let mut message = Vec::new();
        put_number(&mut message, 9, u64::MAX);
        put_bytes(&mut message, 1, &[7; 300]);
        put_number(&mut message, 3, 0);

        let expected =
            vec![(9, Value::Number(u64::MAX)), (1, Value::Bytes(&[7; 300])), (3, Value::Number(0))];
        assert_eq!(fields(&message), Ok(expected));
    }

    /// From the documentation of the encoding: field 1 is 150, field 2 is "testing".
    #[test]
    fn the_documented_examples_are_read() {
        assert_eq!(fields(b"\x08\x96\x01"), Ok(vec![(1, Value::Number(150))]));
        assert_eq!(fields(b"\x12\x07testing"), Ok(vec![(2, Value::Bytes(b"testing"))]));
    }

    #[test]
    fn what_is_cut_short_too_large_or_a_group_is_no_message() {
        for message in [
            &b"\x08"[..],
            b"\x08\x96",
            b"\x12\x07testin",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09\0\0\0\0\0\0\0",
            b"\x0d\0\0\0",
            b"\x0b\x0c",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        ] {
            assert_eq!(fields(message), Err(Malformed), "{message:?}");
        }
        assert_eq!(fields(b"\x0d\0\0\0\0"), Ok(vec![(1, Value::Fixed)]));
    }
}
