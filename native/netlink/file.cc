#include "netlink/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace xfrmesh {

int readFile(const Namespace& where, const std::string& path, std::string& text) {
  return where.run([&] {
    const Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errno;
    std::array<char, 4096> buffer{};
    for (;;) {
      const ssize_t size = read(fd.get(), buffer.data(), buffer.size());
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return errno;
      if (size == 0) return 0;
      text.append(buffer.data(), static_cast<std::size_t>(size));
    }
  });
}

int writeFile(const Namespace& where, const std::string& path, const std::string& text) {
  return where.run([&] {
    const Descriptor fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) return errno;
    for (;;) {
      const ssize_t size = write(fd.get(), text.data(), text.size());
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return errno;
      return static_cast<std::size_t>(size) == text.size() ? 0 : EIO;
    }
  });
}

}  // namespace xfrmesh
