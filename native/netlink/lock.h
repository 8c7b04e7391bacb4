#pragma once

#include <sys/types.h>

#include <string>

#include "netlink/namespace.h"

namespace xfrmesh {

// Who holds a name, as the kernel tells it.
struct Holder {
  pid_t pid = 0;
  uid_t uid = 0;
};

// Takes a name in a network namespace: an abstract Unix socket (unix(7)), which belongs to the namespace, is taken by
// one process at most, and is free again once its holder has closed it or died. 0 and the descriptor that holds it; or
// EADDRINUSE and, as far as it can be told, the holder; or another errno.
int takeName(const Namespace& where, const std::string& name, Descriptor& fd, Holder& holder);

}  // namespace xfrmesh
