//! A vector on its way into the database: written straight from where it stands into the statement, since
//! vectors are most of what is sent.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

/// The components of a vector, bound as pgvector's `vector`.
pub(super) struct Components<'a>(pub(super) &'a [f32]);

impl Type<Postgres> for Components<'_> {
    fn type_info() -> PgTypeInfo {
        pgvector::Vector::type_info()
    }
}

impl PgHasArrayType for Components<'_> {
    fn array_type_info() -> PgTypeInfo {
        pgvector::Vector::array_type_info()
    }
}

impl Encode<'_, Postgres> for Components<'_> {
    /// As pgvector's `vector_recv` reads it: the number of components and a zero, of 16 bits each, then
    /// the components, the most significant byte first.
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&u16::try_from(self.0.len())?.to_be_bytes());
        buffer.extend_from_slice(&0_u16.to_be_bytes());
        let start = buffer.len();
        buffer.resize(start + size_of_val(self.0), 0);
        let (places, _) = buffer[start..].as_chunks_mut::<4>();
        for (place, component) in places.iter_mut().zip(self.0) {
            *place = component.to_be_bytes();
        }
        Ok(IsNull::No)
    }
}
