import type { Endpoint } from '../config/model.ts'
import type { UpstreamFailure } from '../upstream/failure.ts'
import type { Place } from '../upstream/places.ts'
import type { Plane } from './plane.ts'

/**
 * Tells whom a failure counts against: the key that was refused, where there are several, or the target.
 * The target is left alone for refusals of keys only when every key is, and until the first of them may be tried again.
 *
 * @returns whether the same target may be tried at once with another key
 */
export function blame(
  place: Place<Endpoint>,
  { kind, details }: UpstreamFailure,
  plane: Pick<Plane, 'breakers' | 'room' | 'clock' | 'logger'>,
): boolean {
  const { target, key } = place
  const now_ms = plane.clock.now_ms()
  const verdict = plane.room.failed(place, kind, details.retry_after_ms ?? null)
  if (verdict === 'no_key' || verdict === 'key_is_fine') {
    plane.breakers.failure(target.id, kind, now_ms, details.retry_after_ms ?? null)
    return false
  }
  const told = { provider_key: key?.id, endpoint: target.id, kind, status: details.status }
  plane.logger.warn(told, 'a provider refused a key, which is left alone for a while')
  if (verdict === 'another') {
    plane.breakers.inconclusive(target.id, now_ms)
    return true
  }
  plane.breakers.failure(target.id, 'rate', now_ms, plane.room.keyIn_ms(target))
  return false
}
