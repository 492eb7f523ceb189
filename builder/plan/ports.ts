/** EXPOSE: `80`, `80/tcp`, `8000-8010/udp`. */
import { errorAt, type Dockerfile, type Range } from '../../dockerfile-parser/index.ts'

const PROTOCOLS = ['tcp', 'udp', 'sctp']

/** Each port as the config has it, `80/tcp`. Throws DockerfileError `PORT_INVALID`. */
export function parsePorts(tree: Dockerfile, range: Range, text: string): string[] {
  const invalid = (why: string) =>
    errorAt(
      tree,
      range,
      'PORT_INVALID',
      `${JSON.stringify(text)} is not a port: ${why}`,
      'e.g. 80, 53/udp, 8000-8010',
    )
  const match = /^([^/]*)(?:\/(.*))?$/s.exec(text)
  const protocol = (match?.[2] || 'tcp').toLowerCase()
  if (!PROTOCOLS.includes(protocol)) throw invalid(`unknown protocol ${JSON.stringify(match?.[2])}`)
  // A host part (`127.0.0.1:8080:80`) is docker run's; only what is inside the container counts.
  const numbers = match?.[1]?.split(':').at(-1) ?? ''
  const bounds = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(numbers)
  if (bounds === null) throw invalid('no number')
  const first = Number(bounds[1])
  const last = Number(bounds[2] ?? bounds[1])
  if (first > 65535 || last > 65535) throw invalid('over 65535')
  if (last < first) throw invalid('the range is backwards')
  return Array.from({ length: last - first + 1 }, (_, index) => `${first + index}/${protocol}`)
}
