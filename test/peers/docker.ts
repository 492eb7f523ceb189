/** The conformance cases beside the BuildKit in Debian's docker. With `npm run test:peers`, which brings the daemon. */
import { DOCKER } from '../support/peer-differences.ts'
import { comparePeer } from '../support/peer-suite.ts'
import { openDocker } from '../support/peers.ts'

comparePeer(openDocker, DOCKER)
