/** Names of images as distribution/reference reads them (`ParseNormalizedNamed`). */

export interface ImageName {
  /** With registry and `library/`: `docker.io/library/debian`. */
  readonly name: string
  readonly tag?: string | undefined
  readonly digest?: string | undefined
}

const DOMAIN_PART = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const DOMAIN = new RegExp(`^(?:${DOMAIN_PART}(?:\\.${DOMAIN_PART})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`)
const COMPONENT = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/
const TAG = /^\w[\w.-]{0,127}$/
const DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/

/** The parts of an image's name; or what is wrong with it. */
export function parseImageName(text: string): ImageName | string {
  if (text === '') return 'the name is empty'
  if (/^[a-f0-9]{64}$/.test(text)) return 'an image id is not a name'
  const at = text.indexOf('@')
  const digest = at < 0 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !DIGEST.test(digest)) return `'${digest.slice(0, 80)}' is not a digest`
  const named = at < 0 ? text : text.slice(0, at)
  const slash = named.indexOf('/')
  const first = slash < 0 ? '' : named.slice(0, slash)
  const isDomain = first !== '' && (/[.:]/.test(first) || first === 'localhost' || /[A-Z]/.test(first))
  const domain = isDomain ? (first === 'index.docker.io' ? 'docker.io' : first) : 'docker.io'
  const rest = isDomain ? named.slice(slash + 1) : named
  const colon = rest.indexOf(':')
  const path = colon < 0 ? rest : rest.slice(0, colon)
  const tag = colon < 0 ? undefined : rest.slice(colon + 1)
  if (path !== path.toLowerCase()) return `'${path.slice(0, 80)}' has capital letters`
  if (!DOMAIN.test(domain)) return `'${domain.slice(0, 80)}' is not a registry's name`
  if (path === '' || !path.split('/').every((part) => COMPONENT.test(part)))
    return `'${path.slice(0, 80)}' is not a repository's name`
  if (tag !== undefined && !TAG.test(tag))
    return tag === '' ? 'the tag is empty' : `'${tag.slice(0, 80)}' is not a tag`
  const name = `${domain}/${domain === 'docker.io' && !path.includes('/') ? 'library/' : ''}${path}`
  if (name.length > 255) return 'the name is longer than 255 characters'
  return { name, tag, digest }
}
