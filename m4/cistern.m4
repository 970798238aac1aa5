dnl What configure asks about compilers.  Own macros, so that bootstrap needs
dnl nothing but autoconf, automake and pkg-config.

dnl CISTERN_COMPILER_FLAG(VARIABLE, FLAG)
dnl Appends FLAG to VARIABLE when the compiler takes it without a warning.
AC_DEFUN([CISTERN_COMPILER_FLAG], [
AS_VAR_PUSHDEF([cache], [cistern_cv_cflag_$2])
AC_CACHE_CHECK([whether $CC takes $2], [cache], [
	cistern_saved_cflags=$CFLAGS
	CFLAGS="$CFLAGS -Werror $2"
	AC_COMPILE_IFELSE([AC_LANG_PROGRAM],
		[AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
	CFLAGS=$cistern_saved_cflags
])
AS_VAR_IF([cache], [yes], [$1="$$1 $2"])
AS_VAR_POPDEF([cache])
])

dnl CISTERN_LINKER_FLAG(VARIABLE, FLAG, [COMPILER-FLAG])
dnl Appends FLAG to VARIABLE when a program links with it (and was compiled with
dnl COMPILER-FLAG).
AC_DEFUN([CISTERN_LINKER_FLAG], [
AS_VAR_PUSHDEF([cache], [cistern_cv_ldflag_$2])
AC_CACHE_CHECK([whether programs link with $2], [cache], [
	cistern_saved_cflags=$CFLAGS
	cistern_saved_ldflags=$LDFLAGS
	CFLAGS="$CFLAGS -Werror $3"
	LDFLAGS="$LDFLAGS $2"
	AC_LINK_IFELSE([AC_LANG_PROGRAM],
		[AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
	CFLAGS=$cistern_saved_cflags
	LDFLAGS=$cistern_saved_ldflags
])
AS_VAR_IF([cache], [yes], [$1="$$1 $2"])
AS_VAR_POPDEF([cache])
])

dnl CISTERN_OPTIMIZES([IF-YES], [IF-NO])
dnl Whether CFLAGS switch the optimizer on.
AC_DEFUN([CISTERN_OPTIMIZES], [
AC_CACHE_CHECK([whether $CC optimizes], [cistern_cv_optimizes], [
	AC_COMPILE_IFELSE([AC_LANG_SOURCE([
#ifndef __OPTIMIZE__
#error not optimized
#endif
	])], [cistern_cv_optimizes=yes], [cistern_cv_optimizes=no])
])
AS_VAR_IF([cistern_cv_optimizes], [yes], [$1], [$2])
])

dnl CISTERN_HARDENING
dnl Sets HARDENING_CPPFLAGS, HARDENING_CFLAGS and HARDENING_LDFLAGS.
AC_DEFUN([CISTERN_HARDENING], [
CISTERN_COMPILER_FLAG([HARDENING_CFLAGS], [-fPIE])
AS_CASE([$HARDENING_CFLAGS], [*-fPIE*],
	[CISTERN_LINKER_FLAG([HARDENING_LDFLAGS], [-pie], [-fPIE])])
CISTERN_COMPILER_FLAG([HARDENING_CFLAGS], [-fstack-protector-strong])
CISTERN_COMPILER_FLAG([HARDENING_CFLAGS], [-fstack-clash-protection])
CISTERN_COMPILER_FLAG([HARDENING_CFLAGS], [-fcf-protection])
CISTERN_LINKER_FLAG([HARDENING_LDFLAGS], [-Wl,-z,relro])
CISTERN_LINKER_FLAG([HARDENING_LDFLAGS], [-Wl,-z,now])
dnl Sanitizers check the same calls, and better; without optimization the
dnl C library only warns.
AS_IF([test "x$sanitizers" = xno],
	[CISTERN_OPTIMIZES([HARDENING_CPPFLAGS="-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"])])
])

dnl CISTERN_SANITIZERS(LIST)
dnl Sets SANITIZER_CFLAGS, for the compiler and the linker, or gives up.
AC_DEFUN([CISTERN_SANITIZERS], [
SANITIZER_CFLAGS=
CISTERN_LINKER_FLAG([SANITIZER_CFLAGS],
	[-fsanitize=$1 -fno-sanitize-recover=all -fno-omit-frame-pointer])
AS_IF([test -z "$SANITIZER_CFLAGS"],
	[AC_MSG_ERROR([$CC does not build programs with -fsanitize=$1])])
])
