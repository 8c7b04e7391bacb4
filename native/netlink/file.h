#pragma once

#include <string>

#include "netlink/namespace.h"

namespace xfrmesh {

// Files as a thread in that namespace sees them: /proc/thread-self/net and /proc/sys/net are its own. 0 or an errno.
int readFile(const Namespace& where, const std::string& path, std::string& text);
// Writes to a file that is there, in one call, as sysctls take a value.
int writeFile(const Namespace& where, const std::string& path, const std::string& text);

}  // namespace xfrmesh
