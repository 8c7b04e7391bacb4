#pragma once

#include <string>

#include "netlink/namespace.h"

namespace xfrmesh {

// The text of a file as a thread in that namespace sees it, for what /proc/thread-self/net shows. 0 or an errno.
int readFile(const Namespace& where, const std::string& path, std::string& text);

}  // namespace xfrmesh
