import { describe, expect, test } from '@jest/globals'
import { array, assert, constantFrom, property } from 'fast-check'
import { isDeepStrictEqual } from 'node:util'
import { isRecord } from './errors.ts'
import { familiarReference, formatReference, parseReference } from './reference.ts'
import type { Reference } from './reference.ts'

const SHA = `sha256:${'a'.repeat(64)}`

describe('parseReference', () => {
  test.each([
    ['app', 'docker.io/library/app:latest', 'app:latest'],
    ['app:1.0', 'docker.io/library/app:1.0', 'app:1.0'],
    ['org/app', 'docker.io/org/app:latest', 'org/app:latest'],
    ['docker.io/app', 'docker.io/library/app:latest', 'app:latest'],
    ['index.docker.io/library/app', 'docker.io/library/app:latest', 'app:latest'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/a/b/c:x', 'localhost:5000/a/b/c:x', 'localhost:5000/a/b/c:x'],
    ['[::1]:5000/app', '[::1]:5000/app:latest', '[::1]:5000/app:latest'],
    ['[2001:db8::1]/app', '[2001:db8::1]/app:latest', '[2001:db8::1]/app:latest'],
    [
      'example.com/foo--bar/x__y.z',
      'example.com/foo--bar/x__y.z:latest',
      'example.com/foo--bar/x__y.z:latest',
    ],
    ['EXAMPLE.com/app', 'EXAMPLE.com/app:latest', 'EXAMPLE.com/app:latest'],
    [`app@${SHA}`, `docker.io/library/app@${SHA}`, `app@${SHA}`],
    [`app:1@${SHA}`, `docker.io/library/app:1@${SHA}`, `app:1@${SHA}`],
    ['app:UPPER_case-1.0', 'docker.io/library/app:UPPER_case-1.0', 'app:UPPER_case-1.0'],
    ['docker.io/library/a/b', 'docker.io/library/a/b:latest', 'library/a/b:latest'],
  ])('%s', (text, canonical, familiar) => {
    const ref = parseReference(text)
    expect(formatReference(ref)).toBe(canonical)
    expect(familiarReference(ref)).toBe(familiar)
    expect(parseReference(canonical)).toEqual(ref)
    expect(parseReference(familiar)).toEqual(ref)
  })

  test.each([
    ['', /empty/],
    ['https://example.com/app', /address/],
    ['-app', /malformed/],
    ['app-', /malformed/],
    ['a..b/c/d', /not a host/],
    ['a___b', /malformed/],
    ['a//b', /malformed/],
    ['a/b/', /malformed/],
    ['example.com/', /no repository/],
    ['-host.com/app', /host name/],
    ['host:99999/app', /port/],
    ['app:', /tag is empty/],
    ['app:-x', /not a tag/],
    [`app:${'t'.repeat(129)}`, /not a tag/],
    ['app@sha256:abc', /not a digest/],
    [`app@sha512:${'a'.repeat(128)}`, /not a digest/],
    [`app@${SHA.toUpperCase()}`, /not a digest/],
    ['a'.repeat(64), /image ID/],
    [`example.com/${'a'.repeat(256)}`, /longer than 255/],
    ['a'.repeat(5000), /longer than 1024/],
    ['app name', /malformed/],
    ['../app', /not a host/],
    ['äpp', /malformed/],
    ['app\n', /malformed/],
  ])('refuses %j', (text, why) => {
    expect(() => parseReference(text)).toThrow(
      expect.objectContaining({ code: 'REFERENCE_INVALID', message: expect.stringMatching(why) }),
    )
  })

  test('upper-case is refused with the name to write', () => {
    expect(() => parseReference('MyOrg/App:V1')).toThrow(
      expect.objectContaining({ code: 'REFERENCE_INVALID', hint: 'write "myorg/app:V1"' }),
    )
  })

  test('255 characters of path are fine', () => {
    expect(parseReference(`example.com/${'a'.repeat(255)}`).repository).toHaveLength(255)
  })

  test('any text either parses and round-trips, or is refused with REFERENCE_INVALID', () => {
    const alphabet = constantFrom(
      ...Array.from('aB0._-/:@[] \n'),
      'sha256:',
      'localhost',
      'docker.io/',
      'a'.repeat(64),
    )
    assert(
      property(array(alphabet, { maxLength: 24 }), (parts) => {
        const text = parts.join('')
        const { ref, code } = tryParse(text)
        expect(code).toBe(ref === undefined ? 'REFERENCE_INVALID' : undefined)
        if (ref === undefined) return
        // Every form of it means the same.
        const forms = [formatReference(ref), familiarReference(ref)].map((form) => tryParse(form).ref)
        if (!isDeepStrictEqual(forms, [ref, ref]))
          throw new Error(`${JSON.stringify(text)} does not round-trip`)
      }),
      { numRuns: 2000 },
    )
  })
})

function tryParse(text: string): { ref?: Reference; code?: unknown } {
  try {
    return { ref: parseReference(text) }
  } catch (error) {
    return { code: isRecord(error) ? error['code'] : error }
  }
}
