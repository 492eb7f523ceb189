/** A web server of fixed answers. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface WebServer extends Disposable {
  /** Without a `/` at its end. */
  readonly url: string
  /** By path; anything else is 404. */
  readonly served: Map<string, Buffer>
}

export async function startWebServer(): Promise<WebServer> {
  const served = new Map<string, Buffer>()
  const server = createServer((request, response) => {
    const body = served.get(request.url?.split('?')[0] ?? '')
    response.writeHead(body === undefined ? 404 : 200).end(body)
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { url, served, [Symbol.dispose]: () => void server.close() }
}
