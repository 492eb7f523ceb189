/**
 * The packages that talk, behind one dynamic import: they are CommonJS, whose names a bundler gives to static imports only.
 */
export { RegistryClientV2 } from 'oci-registry-client'
export { Agent, ProxyAgent } from 'undici'
