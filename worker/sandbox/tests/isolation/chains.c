/* Forks generation after generation, each of which ends at once, and says by a file that it began. */
#include <fcntl.h>
#include <unistd.h>

int main(void) {
    for (int chain = 0; chain < 6; chain++) {
        if (fork() == 0) {
            for (;;) {
                if (fork() > 0) _exit(0);
            }
        }
    }
    close(open("grown", O_CREAT | O_WRONLY, 0600));
    for (;;) pause();
}
