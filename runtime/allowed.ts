/** May this process make containers at all? */
import { TbuildError } from '../errors.ts'
import { mayMountNothing } from '../linux/index.ts'

/** To be asked before a root is made, which may take long. @throws TbuildError `CONTAINER_DENIED` */
export function checkContainersAllowed(): void {
  // Who is not root is told so by whatever makes the root.
  if (!mayMountNothing()) return
  throw new TbuildError(
    'CONTAINER_DENIED',
    'No container can be made here: this process lacks CAP_SYS_ADMIN.',
    {
      hint: 'RUN and tbuild run need CAP_SYS_ADMIN (docker run --privileged; in Kubernetes securityContext.privileged). COPY, ADD, WORKDIR and all else that runs nothing work without.',
    },
  )
}
