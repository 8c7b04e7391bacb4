#include "netlink/rcu_switch.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace xfrmesh {
namespace {

// Bytes of the file that are locked. Whoever changes anything holds the gate; whoever has the switch on holds the
// users'.
constexpr off_t kGate = 0;
constexpr off_t kUsers = 1;

// Locks of open file descriptions: unlike a process's, they are not lost when another descriptor of the file is closed.
int lock(const Descriptor& file, off_t byte, short type, int command = F_OFD_SETLKW) {
  struct flock wanted {};
  wanted.l_type = type;
  wanted.l_whence = SEEK_SET;
  wanted.l_start = byte;
  wanted.l_len = 1;
  return fcntl(file.get(), command, &wanted) == 0 ? 0 : errno;
}

// Whether nobody else has the switch on. The gate is held.
bool isAlone(const Descriptor& file) { return lock(file, kUsers, F_WRLCK, F_OFD_SETLK) == 0; }

int readAll(const Descriptor& file, std::string& text) {
  std::array<char, 64> buffer{};
  const ssize_t size = pread(file.get(), buffer.data(), buffer.size(), 0);
  if (size < 0) return errno;
  text.assign(buffer.data(), static_cast<std::size_t>(size));
  return 0;
}

int writeAll(const Descriptor& file, std::string_view text) {
  const ssize_t size = pwrite(file.get(), text.data(), text.size(), 0);
  if (size < 0) return errno;
  return static_cast<std::size_t>(size) == text.size() ? 0 : EIO;
}

int setControl(const std::string& path, std::string_view value) {
  const Descriptor control(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return control ? writeAll(control, value) : errno;
}

// Puts back what the notes say, if they say anything. The gate is held, and nobody else has the switch on.
int putBack(const Descriptor& notes, const std::string& control) {
  std::string found;
  int error = readAll(notes, found);
  if (error == 0 && !found.empty()) error = setControl(control, found);
  if (error == 0 && ftruncate(notes.get(), 0) != 0) error = errno;
  return error;
}

// Notes what is found, unless those who were killed have done so, and turns it on.
int turnOn(const Descriptor& notes, const std::string& path) {
  std::string noted;
  int error = readAll(notes, noted);
  if (error == 0 && noted.empty()) {
    const Descriptor control(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!control) return errno;
    error = readAll(control, noted);
    if (error == 0) error = writeAll(notes, noted);
  }
  if (error == 0) error = setControl(path, "1");
  if (error != 0) putBack(notes, path);
  return error;
}

}  // namespace

int RcuSwitch::on() {
  if (notes_) return 0;
  Descriptor notes(open(paths_.notes.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!notes) return errno;
  int error = lock(notes, kGate, F_WRLCK);
  if (error != 0) return error;
  if (isAlone(notes)) error = turnOn(notes, paths_.control);
  if (error == 0) error = lock(notes, kUsers, F_RDLCK);
  if (error == 0) error = lock(notes, kGate, F_UNLCK);
  if (error == 0) notes_ = std::move(notes);
  return error;
}

int RcuSwitch::off() {
  if (!notes_) return 0;
  // Its locks go when it is closed.
  const Descriptor notes = std::move(notes_);
  const int error = lock(notes, kGate, F_WRLCK);
  if (error != 0) return error;
  return isAlone(notes) ? putBack(notes, paths_.control) : 0;
}

int RcuSwitch::mend() {
  if (notes_) return 0;
  const Descriptor notes(open(paths_.notes.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!notes) return errno == ENOENT ? 0 : errno;
  const int error = lock(notes, kGate, F_WRLCK);
  if (error != 0) return error;
  return isAlone(notes) ? putBack(notes, paths_.control) : 0;
}

}  // namespace xfrmesh
