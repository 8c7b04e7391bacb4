#pragma once

#include <sched.h>

namespace xfrmesh::test {

inline constexpr const char* kNoNamespace = "network namespaces are not permitted here";

// Puts this thread into a network namespace of its own, empty and gone with it; without privileges by way of a user
// namespace, which only a process of one thread may enter. False where neither is permitted.
inline bool enterFreshNamespace() { return unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0; }

}  // namespace xfrmesh::test
